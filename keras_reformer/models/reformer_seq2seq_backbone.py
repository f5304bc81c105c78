import inspect

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.sublayers import (
    Sublayers,
    adopt,
    deserialize,
    serialize,
)
from keras_reformer.models.backbone_layers import BackboneLayers, make_layers
from keras_reformer.models.pair_inputs import PairInputs, side_of
from keras_reformer.models.reformer_backbone import ReformerBackbone
from keras_reformer.models.reformer_config import (
    ReformerConfig,
    check_base_arguments,
)
from keras_reformer.models.reformer_model import ReformerModel
from keras_reformer.models.seeds import SavesSeeds
from keras_reformer.models.task import check_sees_both_sides
from keras_reformer.ops.vocabulary import known_token_ids


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerSeq2SeqBackbone(SavesSeeds, PairInputs, ReformerModel):
    """An encoder and a decoder: two sequences of tokens to hidden states.

    The encoder is a `ReformerBackbone` that sees both sides of a token. The
    decoder is a causal one whose blocks have a third branch: exact attention
    to the encoder's outputs, a chunk of queries at a time. Both stacks are
    reversible, so that activations do not grow with the depth of either, and
    the encoder's outputs get the gradients of all of the decoder's blocks.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks of the decoder, and of
            the encoder.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of each residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length of either sequence.
        encoder: `ReformerBackbone` with `causal=False`, for an encoder of
            other sizes than the decoder's, or one that was trained before.
            Defaults to one of the same arguments.
        share_embeddings: bool. Whether encoder and decoder have one table of
            token embeddings. Defaults to True, and to False with an `encoder`.
        cross_num_key_value_heads: int. Heads of keys and values of the
            attention to the encoder's outputs, which decoding keeps. Defaults
            to the decoder's `num_key_value_heads`.
        **kwargs: further arguments of `ReformerBackbone`, but for `causal`.

    Call arguments:
        inputs: dict of `encoder_token_ids` and `decoder_token_ids`, int
            `(batch, length)` of each one's own length, and optionally
            `encoder_padding_mask` and `decoder_padding_mask`, bool of the
            same shapes, True at valid tokens.

    Returns:
        Float tensor `(batch, decoder's length, 2 * hidden_dim)`, or
        `hidden_dim` wide for `merge="mean"`.

    Raises:
        ValueError: if an argument is out of its range, the encoder is causal,
            or embeddings cannot be shared.

    Example:

    >>> backbone = keras_reformer.ReformerSeq2SeqBackbone(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> backbone({
    ...     "encoder_token_ids": keras.ops.ones((1, 300), dtype="int32"),
    ...     "decoder_token_ids": keras.ops.ones((1, 20), dtype="int32"),
    ... }).shape
    TensorShape([1, 20, 64])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451),
    section 4.1; [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762).
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_sequence_length,
        encoder=None,
        share_embeddings=None,
        dtype=None,
        cross_num_key_value_heads=None,
        **kwargs,
    ):
        base, arguments = _split(
            kwargs,
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            max_sequence_length=max_sequence_length,
        )
        config = _decoder_config(arguments)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        if share_embeddings is None:
            share_embeddings = encoder is None

        # === Layers ===
        encoder = _checked_encoder(encoder, arguments, policy)
        table = _shared_table(encoder, config) if share_embeddings else None
        sublayers = Sublayers(base.pop("sublayers", None))
        trainable = base.get("trainable", True)
        cross_heads = _cross_heads(cross_num_key_value_heads, config)
        layers = _decoder_layers(
            config, cross_heads, policy, table, sublayers, trainable
        )

        # === Functional model ===
        inputs = self.symbolic_inputs()
        context = _context(encoder, inputs)
        hidden = layers.before_normalization(
            side_of(inputs, "decoder"), context
        )
        outputs = layers.normalization(hidden)
        super().__init__(inputs=inputs, outputs=outputs, **base)

        # === Config ===
        # The Functional constructor ignores `dtype`.
        self.dtype_policy = policy
        self._config = config
        self._cross_heads = cross_heads
        self._share_embeddings = bool(share_embeddings)
        self._backbone_layers = layers
        self._sublayers = sublayers
        self.encoder = adopt(encoder)
        self.token_embedding = layers.token_embedding
        self.position_embedding = layers.position_embedding
        self.sequence = layers.sequence
        self.normalization = layers.normalization

    @property
    def vocabulary_size(self):
        """Number of token ids of the decoder."""
        return self._config.vocabulary_size

    @property
    def max_sequence_length(self):
        """Greatest length of the decoder's tokens."""
        return self._config.max_sequence_length

    def call(self, inputs, training=None, mask=None):
        return self.normalization(
            self.before_normalization(inputs, training, mask)
        )

    def before_normalization(self, inputs, training=None, mask=None):
        """The decoder's hidden states before the final `normalization`.

        Args:
            inputs: as the model takes them.
            training: bool.
            mask: as the model takes it.

        Returns:
            Float tensor of the outputs' shape.
        """
        inputs = self.complete_inputs(inputs, mask)
        context = _context(self.encoder, inputs, training=training)
        return self._backbone_layers.before_normalization(
            self._known(side_of(inputs, "decoder")), context, training=training
        )

    def _known(self, inputs):
        """Inputs of the decoder whose token ids are in the vocabulary."""
        known = known_token_ids(
            inputs["token_ids"], inputs["padding_mask"], self.vocabulary_size
        )
        return {**inputs, "token_ids": known}

    def prefill(self, token_ids, padding_mask, capacity, source, source_mask):
        """The outputs for prompts, and the cache to go on from.

        Args:
            token_ids: int32 tensor `(batch, length)`: the decoder's prompts.
            padding_mask: Boolean tensor `(batch, length)`, True at valid
                tokens, which come first.
            capacity: int or scalar tensor. Greatest number of positions.
            source: int32 tensor `(batch, source_length)`: what the encoder
                reads.
            source_mask: Boolean tensor `(batch, source_length)`.

        Returns:
            The model's outputs, and a structure of tensors whose first axis
            is the batch. It holds what steps need of the encoder's outputs.
        """
        inputs = {
            "encoder_token_ids": source,
            "encoder_padding_mask": source_mask,
            "decoder_token_ids": token_ids,
            "decoder_padding_mask": padding_mask,
        }
        inputs = self.complete_inputs(inputs)
        return self._backbone_layers.prefill(
            side_of(inputs, "decoder"),
            capacity,
            _context(self.encoder, inputs, training=False),
        )

    def decode(self, token_ids, cache, positions, constants=None):
        """The outputs for one more token of each row.

        Args:
            token_ids: int32 tensor of shape `(batch, 1)`.
            cache: what `prefill` or `decode` returned.
            positions: int32 tensor of shape `(batch,)`: where the tokens are.
            constants: what `decode_constants` returned, or None to compute
                it here.

        Returns:
            Float tensor like the model's outputs, of length 1, and the cache.
        """
        x = self._backbone_layers.embed({"token_ids": token_ids}, positions)
        x, cache = self.sequence.decode(x, cache, positions, constants)
        return self.normalization(x), cache

    def decode_constants(self):
        """The part of `decode` that is equal in all steps of a loop."""
        return self.sequence.decode_constants()

    def get_config(self):
        arguments = self._config.as_dict()
        arguments.pop("causal")
        config = {
            **arguments,
            "encoder": serialize(self.encoder),
            "share_embeddings": self._share_embeddings,
            "cross_num_key_value_heads": self._cross_heads,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        changes = self._sublayers.changes(self.trainable)
        return {**config, "sublayers": changes} if changes else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # In files from before this option no heads share keys.
        config = {"cross_num_key_value_heads": config["num_heads"], **config}
        config["encoder"] = deserialize(config["encoder"], custom_objects)
        return cls(**config)


def _split(kwargs, **sizes):
    """Arguments of the base model, and those of encoder and decoder."""
    base = {k: v for k, v in kwargs.items() if k in _BASE}
    return base, sizes | {k: v for k, v in kwargs.items() if k not in _BASE}


_BASE = ("name", "trainable", "sublayers")


def _cross_heads(given, config):
    """Heads of keys and values of cross-attention."""
    given = config.num_key_value_heads if given is None else given
    name = "cross_num_key_value_heads"
    return checks.num_key_value_heads(given, config.num_heads, name)


def _decoder_layers(config, cross_heads, policy, table, sublayers, trainable):
    """The decoder's layers, with the encoder's table of token embeddings.

    Args:
        config: `ReformerConfig`.
        cross_heads: int. Heads of keys and values of cross-attention.
        policy: dtype policy.
        table: the embedding layer to share, or None for one of its own.
        sublayers: `Sublayers`.
        trainable: bool. Whether the model is.
    """
    made = make_layers(config, policy, cross_heads)._asdict()
    if table is not None:
        made.pop("token_embedding")
    layers = sublayers.make_all(made, trainable)
    return BackboneLayers(**({"token_embedding": table} | layers))


def _decoder_config(arguments):
    """The decoder's `ReformerConfig`: a backbone's defaults, and causal."""
    parameters = inspect.signature(ReformerBackbone).parameters.values()
    empty = inspect.Parameter.empty
    known = {p.name: p.default for p in parameters} | arguments
    known = {name: x for name, x in known.items() if x is not empty}
    known.pop("dtype", None)
    fields = inspect.signature(ReformerConfig).parameters
    check_base_arguments(
        {k: v for k, v in arguments.items() if k not in fields}
    )
    if "causal" in arguments:
        raise ValueError(
            "An encoder sees both sides of a token and a decoder does not. "
            f"Expected no `causal`. Received: causal={arguments['causal']}"
        )
    return ReformerConfig(**{**known, "causal": True}).resolve()


def _checked_encoder(encoder, arguments, policy):
    """The encoder, or one that is made of the decoder's arguments."""
    if encoder is None:
        seed = arguments.get("seed")
        options = {**arguments, "seed": None if seed is None else seed + 1}
        return ReformerBackbone(
            **options, causal=False, dtype=policy, name="encoder"
        )
    if not isinstance(encoder, ReformerBackbone):
        raise ValueError(
            "`encoder` must be a `ReformerBackbone`, or None for one of the "
            f"same arguments. Received: encoder={encoder!r}"
        )
    check_sees_both_sides(encoder, "An encoder sees both sides of a token.")
    return encoder


def _shared_table(encoder, config):
    """The encoder's table of token embeddings, if it fits the decoder."""
    table = encoder.token_embedding
    found = table.input_dim, table.output_dim
    expected = config.vocabulary_size, config.hidden_dim
    if found != expected:
        raise ValueError(
            "A shared table of embeddings has the sizes of encoder and "
            "decoder. Expected an encoder of (vocabulary_size, hidden_dim)="
            f"{expected}, or share_embeddings=False. Received: {found}"
        )
    return table


def _context(encoder, inputs, **options):
    """The encoder's outputs as a decoder's stack takes them."""
    inputs = side_of(inputs, "encoder")
    return {
        "context": encoder(inputs, **options),
        "context_mask": inputs["padding_mask"],
    }
