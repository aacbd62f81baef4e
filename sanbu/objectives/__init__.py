"""Step 2: how good is one function? A line for each kind; its file has the equation, the config and the loss."""

KINDS = {
    # likelihood and its bounds
    "next-token": "next_token",
    "next-token-chunked": "next_token",
    "in-context": "in_context",
    "likelihood": "likelihood",
    "elbo": "elbo",
    "importance-weighted": "elbo",
    # two players
    "non-saturating": "adversarial",
    "hinge": "adversarial",
    "wasserstein": "adversarial",
    # denoising
    "denoising": "denoising",
    "consistency": "consistency",
    # labels and preferences
    "discriminative": "discriminative",
    "bradley-terry": "reward_model",
    "plackett-luce": "reward_model",
    "dpo": "preference",
    "conservative-dpo": "preference",
    "ipo": "preference",
    "kto": "preference",
    # reinforcement learning from the model's own answers
    "ppo": "policy.ppo",
    "grpo": "policy.group",
    "rloo": "policy.group",
}

REWARDS = {"learned": "policy.rewards", "checked": "policy.rewards"}  # what an answer is worth
TIMES = {
    "uniform": "times",
    "logit-normal": "times",
    "log-normal": "times",
}  # which times of a noise path training draws
