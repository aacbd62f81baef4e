"""Step 2: how good is one function? One line per kind; its file has the equation, the config and the loss."""

KINDS = {
    # likelihood and its bounds
    "next-token": "next_token",
    "next-token-chunked": "next_token",
    "next-token-carried": "carried",
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
    # a number or a label of an input
    "squared": "supervised",
    "absolute": "supervised",
    "quantile": "supervised",
    "gaussian": "supervised",
    "cross-entropy": "supervised",
    "accuracy": "supervised",
    # few labels, many pictures without
    "augmented": "few_labels",
    "reconstruction": "reconstruction",
    "pseudo-label": "few_labels",
    "mean-teacher": "few_labels",
    "fixmatch": "few_labels",
    "freematch": "few_labels",
    # waves of sound
    "spectral": "spectral",
    "wave-game": "wave_game",
    "coding": "coding",
    "next-code": "next_code",
    "wave-likelihood": "wave_likelihood",
    "acoustic-copies": "acoustic_copies",
    # mels of texts
    "speaking": "speaking",
    "distilled-speaking": "distilled_speaking",
    "reading-aloud": "reading_aloud",
    "speaking-flow": "speaking_flow",
    # mels of scores
    "performing": "performing",
    "performing-flow": "performing",
    # letters of sound
    "ctc": "ctc",
    "ctc-choice": "ctc_choice",
    # the cells of a table
    "columns": "columns",
    # labels and preferences
    "discriminative": "discriminative",
    "bradley-terry": "reward_model",
    "plackett-luce": "reward_model",
    "dpo": "preference",
    "conservative-dpo": "preference",
    "ipo": "preference",
    "kto": "preference",
    # reinforcement learning on answers sampled from the model
    "reinforce": "policy.reinforce",
    "ppo": "policy.ppo",
    "grpo": "policy.group",
    "rloo": "policy.group",
}

REWARDS = {"learned": "policy.rewards", "checked": "policy.rewards", "function": "policy.rewards"}  # of an answer
# distributions of the times of a noise path in training
TIMES = {"uniform": "times", "logit-normal": "times", "log-normal": "times"}
