"""Low-rank adaptation: KerasHub's verb, and adapters that can learn."""

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.layers.static_state import sublayers_of

# What attention compares and what it returns.
_TARGETS = ("query_key", "query", "value")
_FACTORS = (
    ("lora_kernel_a", "lora_kernel_b"),
    ("lora_embeddings_a", "lora_embeddings_b"),
)


class HasLora(ModelMixin):
    """A model whose layers may have adapters, also once it was loaded."""

    def enable_lora(self, rank, target_layer_names=None):
        """Freezes the backbone and gives some of its layers adapters.

        A task's head goes on training. One with `tie_embeddings=True` has no
        weights of its own and is frozen with the table, as in KerasHub;
        `"token_embedding"` among the names gives the table an adapter, which
        counts in both places. Compile the model after it.

        Args:
            rank: int. Rank of the adapters.
            target_layer_names: list of names of layers that have an
                `enable_lora` of Keras's. Defaults to `"query_key"`, `"query"`
                and `"value"`: what attention compares and what it returns.

        Raises:
            ValueError: if no layer without an adapter has one of the names.
        """
        checks.positive_int("rank", rank)
        names = _TARGETS if target_layer_names is None else target_layer_names
        backbone = getattr(self, "backbone", self)
        layers = [x for x in sublayers_of(backbone) if x is not backbone]
        able = [x for x in layers if hasattr(x, "enable_lora")]
        targets = [x for x in able if x.name in names and not x.lora_enabled]
        if not targets:
            raise ValueError(
                "No layer without an adapter has one of these names. Expected "
                f"some of {sorted({x.name for x in able})}. Received: "
                f"target_layer_names={list(names)}"
            )
        for layer in layers:
            # Not those around others, which have adapters inside.
            if len(sublayers_of(layer)) == 1:
                layer.trainable = False
        for layer in targets:
            layer.trainable = True
            layer.enable_lora(rank)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        super().load_weights(filepath, skip_mismatch, **kwargs)
        restart_adapters(self)

    def make_train_function(self, force=False):
        if self.train_function is None:
            restart_adapters(self)
        return super().make_train_function(force)


def restart_adapters(model):
    """Lets adapters learn whose both factors are zero.

    Keras merges an adapter into its kernel when it is saved, and loads zeros
    for both factors, between which no gradient is left. The first one is
    drawn here as `enable_lora` draws it, which changes no output.

    Args:
        model: Keras layer or model.
    """
    draw = keras.initializers.HeUniform()
    for layer in sublayers_of(model):
        if not getattr(layer, "lora_enabled", False):
            continue
        for names in _FACTORS:
            pair = [getattr(layer, x) for x in names if hasattr(layer, x)]
            if pair and not any(_has_values(factor) for factor in pair):
                pair[0].assign(draw(pair[0].shape, pair[0].dtype))


def _has_values(variable):
    return keras.ops.convert_to_numpy(variable).any()
