"""What Keras's `quantize` does to the models here."""

import warnings

from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.layers.static_state import sublayers_of

_CALIBRATED = ("gptq", "awq")
# Layers without such weights, and without this mode, say so one by one.
_NOISE = (
    "Layer .* does not have a `quantize` method",
    "Invalid quantization mode",
)


class Quantizes(ModelMixin):
    """A model whose dense layers and embeddings may be quantized."""

    def quantize(self, mode=None, **kwargs):
        """Quantizes dense layers and embeddings; see `keras.Model.quantize`.

        Norms, position tables, biases of positions and short convolutions
        stay floats. `"float8"` quantizes dense layers alone.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`.
            **kwargs: `config` and `filters`, as `keras.Model.quantize` takes
                them.

        Raises:
            ValueError: for a mode that is calibrated block by block, without
                a structure for it in the `config`.
        """
        config = kwargs.get("config")
        structure = getattr(config, "quantization_layer_structure", None)
        if mode in _CALIBRATED and structure is None:
            raise ValueError(
                "A reversible block has two streams, and Keras calibrates "
                "blocks of one. Expected mode='int8', 'int4' or 'float8'. "
                f"Received: mode={mode!r}"
            )
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            super().quantize(mode, **kwargs)
        if not kwargs.get("filters"):
            _tell_of_others(self, mode)


def _tell_of_others(model, mode):
    """Warns of layers that know other modes than this one."""
    names = [
        layer.name
        for layer in sublayers_of(model)
        if mode not in getattr(layer, "variable_serialization_spec", [mode])
    ]
    if names:
        warnings.warn(
            f"Layers that have no such quantization stay as they were: "
            f"{', '.join(names)}. Expected mode='int8' or 'int4' for them. "
            f"Received: mode={mode!r}",
            stacklevel=4,
        )
