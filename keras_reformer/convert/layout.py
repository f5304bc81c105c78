"""Where a model's variables lie in a published checkpoint.

One list serves both directions: each entry names a published array, the
variable it belongs to, and whether one is the other transposed.
"""

from typing import NamedTuple

import keras
import numpy as np

# Buffers that old checkpoints hold beside their weights.
_BUFFERS = (
    "self_mask_value_float16",
    "self_mask_value_float32",
    "mask_value_float16",
    "mask_value_float32",
)


# What PyTorch's wrappers of modules put into names: DataParallel, compile,
# FSDP, checkpoint_wrapper, Lightning.
_WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "model",
}


class Weight(NamedTuple):
    """A published array and its variable.

    Attributes:
        name: its published name.
        variable: the Keras variable.
        shape: its published shape.
        transposed: bool. PyTorch's linear layers hold `(outputs, inputs)`.
    """

    name: str
    variable: keras.Variable
    shape: tuple[int, ...]
    transposed: bool = False

    def assign(self, array):
        """Sets the variable to a published array."""
        array = array.T if self.transposed else array
        self.variable.assign(array.reshape(self.variable.shape))

    def array(self):
        """The variable's value as the published array."""
        value = keras.ops.convert_to_numpy(self.variable)
        value = value.T if self.transposed else value
        return np.ascontiguousarray(value.reshape(self.shape))


def published_weights(backbone, heads, prefix="reformer."):
    """All published arrays of a model, in the order of its layers.

    Args:
        backbone: `ReformerBackbone`.
        heads: dict, by published name the dense layers that follow it.
        prefix: str. What the names of the backbone's arrays begin with.

    Returns:
        List of `Weight`.
    """
    body = [
        *_embeddings(backbone),
        *(
            weight
            for index, block in enumerate(backbone.sequence.blocks)
            for weight in _block(f"encoder.layers.{index}.", block)
        ),
        *_normalization("encoder.layer_norm", backbone.normalization),
    ]
    found = [weight._replace(name=prefix + weight.name) for weight in body]
    for name, layer in heads.items():
        found += _dense(name, layer)
    return found


def is_buffer(name):
    """Whether a published name is that of a constant, not of a weight."""
    return name.rsplit(".", 1)[-1] in _BUFFERS


def without_wrappers(weights):
    """A state dict by the names of the model itself.

    Raises:
        ValueError: if two arrays would have one name.
    """
    found = {}
    for name, array in weights.items():
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        own = ".".join(parts)
        if own in found:
            raise ValueError(
                "A state dict holds an array twice, under a wrapper's name "
                f"too. Expected one {own}. Received: {name} as well"
            )
        found[own] = array
    return found


def _embeddings(backbone):
    table = backbone.token_embedding.embeddings
    yield _plain("embeddings.word_embeddings.weight", table)
    name = "embeddings.position_embeddings."
    tables = backbone.position_embedding.tables
    if len(tables) == 1:
        yield _plain(f"{name}embedding.weight", tables[0])
        return
    for axis, table in enumerate(tables):
        shape = [1] * len(tables) + [table.shape[1]]
        shape[axis] = table.shape[0]
        yield Weight(f"{name}weights.{axis}", table, tuple(shape))


def _block(name, block):
    attention, feed_forward = block.attention, block.feed_forward
    yield from _normalization(
        f"{name}attention.layer_norm", attention.normalization
    )
    layer = attention.layer
    for projection in layer._projections:
        yield from _dense(
            f"{name}attention.self_attention.{projection}",
            getattr(layer, projection),
        )
    yield from _dense(f"{name}attention.output.dense", layer.attention_output)
    yield from _normalization(
        f"{name}feed_forward.layer_norm", feed_forward.normalization
    )
    layer = feed_forward.layer
    yield from _dense(f"{name}feed_forward.dense.dense", layer.intermediate)
    yield from _dense(f"{name}feed_forward.output.dense", layer.output_dense)


def _normalization(name, layer):
    yield _plain(f"{name}.weight", layer.gamma)
    yield _plain(f"{name}.bias", layer.beta)


def _dense(name, layer):
    kernel = layer.kernel
    yield Weight(f"{name}.weight", kernel, tuple(kernel.shape[::-1]), True)
    if layer.bias is not None:
        yield _plain(f"{name}.bias", layer.bias)


def _plain(name, variable):
    return Weight(name, variable, tuple(variable.shape))
