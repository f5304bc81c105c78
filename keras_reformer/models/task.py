"""The base of models made of a backbone and a head."""

import keras

from keras_reformer.layers.reversible_block import stream_dtype
from keras_reformer.layers.sublayers import (
    Sublayers,
    adopt,
    deserialize,
    serialize,
)
from keras_reformer.models.inputs import as_dict
from keras_reformer.models.reformer_backbone import ReformerBackbone
from keras_reformer.models.reformer_model import ReformerModel
from keras_reformer.models.replicas import WeighsReplicas


class Task(WeighsReplicas, ReformerModel):
    """A Functional model of a backbone and a head for one task.

    A subclass makes the head's layers in `_make_head` and connects them in
    `_connect`. The arguments are a `backbone` or its arguments, and those of
    the head. (Keras takes an `__init__` with `*args` for that of
    `keras.Model`.)
    """

    # The head's arguments, and defaults that replace the backbone's.
    _head_defaults = {}
    _backbone_defaults = {}
    _backbone_class = ReformerBackbone
    # Whether outputs or labels are of whole rows.
    _answers_rows = False

    def __init__(
        self,
        vocabulary_size=None,
        num_layers=None,
        num_heads=None,
        hidden_dim=None,
        intermediate_dim=None,
        max_sequence_length=None,
        *,
        backbone=None,
        name=None,
        **kwargs,
    ):
        trainable = kwargs.pop("trainable", True)
        sublayers = Sublayers(kwargs.pop("head_sublayers", None))
        head_options = {
            option: kwargs.pop(option, default)
            for option, default in self._head_defaults.items()
        }
        given = (
            vocabulary_size,
            num_layers,
            num_heads,
            hidden_dim,
            intermediate_dim,
            max_sequence_length,
        )
        sizes = dict(zip(_SIZES, given, strict=True))
        if backbone is None:
            kwargs = {**self._backbone_defaults, **kwargs}
        backbone = _backbone(self._backbone_class, backbone, sizes, kwargs)
        self._check_backbone(backbone)
        # === Layers ===
        head = self._make_head(backbone, **head_options)
        head = sublayers.make_all(head, trainable)

        # === Functional model ===
        inputs = self.symbolic_inputs()
        super().__init__(
            inputs=inputs,
            outputs=self._connect(head, backbone(inputs)),
            name=name,
            trainable=trainable,
        )

        # === Config ===
        # The Functional constructor ignores `dtype`.
        self.dtype_policy = backbone.dtype_policy
        self.backbone = adopt(backbone)
        self._sublayers = sublayers
        self._head_options = head_options
        self._head = head
        for attribute, layer in head.items():
            setattr(self, attribute, layer)

    def _check_backbone(self, backbone):
        """Raises a `ValueError` if the head cannot use the backbone."""

    def _make_head(self, backbone):
        """Makes the head's layers, by attribute name."""
        raise NotImplementedError

    def _connect(self, head, hidden, **options):
        """Logits for the backbone's outputs, at least float32.

        Makes the Functional graph, and is what a call of the model runs.

        Args:
            head: what `_make_head` returns.
            hidden: the backbone's outputs.
            **options: `training`, where Keras's call context lacks it.
        """
        raise NotImplementedError

    def complete_inputs(self, inputs, mask=None):
        return self.backbone.complete_inputs(inputs, mask)

    def call(self, inputs, training=None, mask=None):
        if self._answers_rows:
            _check_unpacked(self, as_dict(inputs).get("segment_ids"))
        hidden = self.backbone(inputs, training=training, mask=mask)
        return self._connect(self._head, hidden, training=training)

    def make_train_function(self, force=False):
        # An optimizer that is built while a step is traced makes TensorFlow
        # trace it twice, with a condition for each of its variables.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def get_config(self):
        config = {
            "backbone": serialize(self.backbone),
            **self._head_options,
            "name": self.name,
            "trainable": self.trainable,
        }
        changes = self._sublayers.changes(self.trainable)
        return {**config, "head_sublayers": changes} if changes else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["backbone"] = deserialize(config["backbone"], custom_objects)
        return cls(**config)


def _check_unpacked(model, segment_ids):
    if segment_ids is not None:
        raise ValueError(
            f"A `{type(model).__name__}` answers once for each row. Expected "
            "a document in each, without segment_ids. Received: segment_ids "
            f"of shape {tuple(segment_ids.shape)}"
        )


def logits_layer(policy, name="logits"):
    """A layer that casts logits to at least float32."""
    dtype = stream_dtype(policy)
    return keras.layers.Activation("linear", dtype=dtype, name=name)


def check_sees_both_sides(backbone, reason):
    """Raises a `ValueError` with a way out if the backbone is causal."""
    if backbone.get_config()["causal"]:
        raise ValueError(
            f"{reason} Expected a backbone with causal=False. Received: "
            "causal=True. The weights of a causal one fit the other: "
            "`other = ReformerBackbone.from_config({**backbone.get_config(), "
            "'causal': False}); other.set_weights(backbone.get_weights())`. "
            "A checkpoint becomes the other with "
            "`convert.load_huggingface(path, config={'is_decoder': False})`"
        )


_SIZES = (
    "vocabulary_size",
    "num_layers",
    "num_heads",
    "hidden_dim",
    "intermediate_dim",
    "max_sequence_length",
)


def _backbone(make, backbone, sizes, options):
    """Returns the backbone, or makes one from the other arguments."""
    given = {k: v for k, v in sizes.items() if v is not None} | options
    if backbone is None:
        missing = sorted(k for k, v in sizes.items() if v is None)
        if missing:
            raise ValueError(
                "A model needs all sizes, or a `backbone`. Missing: "
                f"{missing}. Received: "
                + ", ".join(f"{name}=None" for name in missing)
            )
        backbone = make(**sizes, **options)
    elif given:
        raise ValueError(
            "Either `backbone` or its arguments may be given, not both. "
            f"Received: backbone={backbone.name} and {sorted(given)}"
        )
    return backbone
