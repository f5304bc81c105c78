"""What TensorFlow's checkpoints find in a layer."""


def track_each(layer, name, values):
    """Makes each of a list's values an attribute, `_NAME_INDEX`, too.

    `tf.train.Checkpoint` looks at attributes, not into lists that Keras
    tracks. The names are private because Keras's own files visit such names
    last: what is in them stays where the list has put it.

    Args:
        layer: Keras layer that has the list as an attribute already.
        name: str. What one of the values is called.
        values: list of layers or variables.
    """
    for index, value in enumerate(values):
        setattr(layer, f"_{name}_{index}", value)
