"""Caches for decoding a token at a time, and attention to them."""
