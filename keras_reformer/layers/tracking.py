"""What `tf.train.Checkpoint` and `tf.saved_model.save` find in a layer.

They look at a layer's attributes and into no list or generator that only
Keras tracks.
"""


def track_each(layer, name, values):
    """Makes each value of a list an attribute `_NAME_INDEX` too.

    The names are private because Keras visits such names last when it saves:
    weights keep the place in a file that the list gives them.

    Args:
        layer: Keras layer that already has the list as an attribute.
        name: str. Name of a single value.
        values: list of layers or variables.
    """
    for index, value in enumerate(values):
        setattr(layer, f"_{name}_{index}", value)


def seed_state(layer):
    """The variable of a layer's `seed_generator`, or None without one.

    For an attribute of the layer, since TensorFlow does not look into Keras's
    generators either. It is TensorFlow's own variable, which Keras does not
    count as a second one.

    Args:
        layer: Keras layer.
    """
    generator = getattr(layer, "seed_generator", None)
    state = None if generator is None else generator.state.value
    # While Keras infers shapes it is a tensor of a graph.
    return state if hasattr(state, "assign") else None
