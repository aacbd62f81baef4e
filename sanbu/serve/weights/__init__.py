"""How the weights of linear layers lie in memory while a model is served."""
