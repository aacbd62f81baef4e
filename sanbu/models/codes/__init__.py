"""Language models of codes: several tokens per step."""
