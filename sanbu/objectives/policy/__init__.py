"""Policy optimisation: sample answers, reward them, and make the better ones more likely."""
