"""What `tf.train.Checkpoint` and `tf.saved_model.save` find in a layer."""


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


def track_seed(layer):
    """Makes the state of a layer's `seed_generator`, if any, an attribute.

    TensorFlow does not look into Keras's generators either. What is set is
    TensorFlow's own variable, which Keras does not count as a second one.

    Args:
        layer: Keras layer.
    """
    generator = getattr(layer, "seed_generator", None)
    state = None if generator is None else generator.state.value
    # Of a layer made while Keras infers shapes it is a graph's tensor so far.
    if hasattr(state, "assign"):
        layer._seed_state = state
