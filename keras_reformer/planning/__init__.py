"""How much memory a train step will take, before anything is built.

Example:

>>> plan = keras_reformer.planning.plan_training(
...     vocabulary_size=258, num_layers=12, num_heads=8, hidden_dim=1024,
...     intermediate_dim=4096, max_sequence_length=2**20, device="v5e",
... )
>>> plan.fits
False
>>> plan.advice[-1][0]
'hidden_dim 512'
"""

from keras_reformer.planning.devices import DEVICES, Device
from keras_reformer.planning.memory import OPTIMIZERS, Part, Plan, plan_training

__all__ = [
    "DEVICES",
    "OPTIMIZERS",
    "Device",
    "Part",
    "Plan",
    "plan_training",
]
