"""Steps of `fit`, `evaluate` and `predict` on devices that jax has."""

from keras_reformer.distribute.jax_engine import JaxEngine as JaxEngine

__all__ = ["JaxEngine"]
