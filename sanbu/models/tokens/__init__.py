"""Decoders: called with tokens, they give logits of the next token."""
