"""Pure functions on tensors: the mathematics of the Reformer.

Axes in shapes and einsums:

| letter | axis |
|---|---|
| b | batch |
| h | head |
| g | batch and head in one axis, head fastest |
| t | position in the sequence |
| r | hash round |
| n | chunk |
| c | slot of a query in its chunk |
| k | slot of a key in its chunk |
| d | width of a head's vectors |
| e | width of the model |
"""
