"""Reversible residual blocks that recompute their activations."""
