"""Loaders of exported models, to prove that what they answer is equal."""
