"""What a model's LSH layers hash with, by number of layer."""

import keras

from keras_reformer.layers.lsh_arguments import factors
from keras_reformer.ops.attention.hashing import sample_rotations


def get_rotations(model):
    """What a model hashes with at inference, as `from_huggingface` takes it.

    A state dict holds no rotations. Given these too, a model made of one
    hashes as this one does.

    Args:
        model: a backbone or a model made of one.

    Returns:
        dict of float arrays `(num_heads, key_dim, num_hashes,
        sum(num_buckets) // 2)` by the number of their layer.

    Example:

    >>> backbone = keras_reformer.ReformerBackbone(
    ...     vocabulary_size=11, num_layers=2, num_heads=2, hidden_dim=8,
    ...     intermediate_dim=16, max_sequence_length=64, num_buckets=4,
    ... )
    >>> rotations = keras_reformer.convert.get_rotations(backbone)
    >>> {layer: array.shape for layer, array in rotations.items()}
    {1: (2, 4, 4, 2)}
    """
    layers = getattr(model, "backbone", model).lsh_layers()
    return {index: _rotations(layer) for index, layer in layers.items()}


def set_rotations(backbone, rotations):
    """Gives LSH layers rotations to hash with at inference.

    Args:
        backbone: `ReformerBackbone`.
        rotations: mapping of numbers of layers to arrays.

    Raises:
        ValueError: if a layer is no LSH layer, or a shape does not fit.
    """
    layers = backbone.lsh_layers()
    for index, value in rotations.items():
        if index not in layers:
            raise ValueError(
                "Rotations belong to LSH layers. Expected numbers of layers "
                f"among {list(layers)}. Received: layer={index}"
            )
        layers[index].rotations = value


def _rotations(layer):
    if layer.rotations is not None:
        return layer.rotations
    drawn = sample_rotations(
        keras.ops.convert_to_tensor(layer.rotation_seed),
        layer.num_heads,
        layer.key_dim,
        layer.num_hashes,
        factors(layer.num_buckets),
    )
    return keras.ops.convert_to_numpy(drawn)
