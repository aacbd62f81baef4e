"""Latent variable models: called with a picture and noise, they give the terms of a bound; they also decode."""
