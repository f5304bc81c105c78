"""Steps of `fit`, `evaluate` and `predict` on devices that jax has.

>>> engine = keras_reformer.distribute.JaxEngine()
>>> engine.num_devices >= 1
True
"""

from keras_reformer.distribute.jax_engine import JaxEngine as JaxEngine
from keras_reformer.distribute.processes import initialize as initialize

__all__ = ["JaxEngine", "initialize"]
