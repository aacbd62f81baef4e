"""Quantizers: vectors of real numbers to codes, whole numbers of small codebooks, and back."""
