import keras

from keras_reformer.layers import LSHSelfAttention
from keras_reformer.layers.sublayers import Sublayers
from keras_reformer.models.backbone_layers import BackboneLayers, make_layers
from keras_reformer.models.inputs import token_inputs, with_checked_sizes
from keras_reformer.models.reformer_config import (
    ReformerConfig,
    check_base_arguments,
)
from keras_reformer.models.reformer_model import ReformerModel
from keras_reformer.models.seeds import SavesSeeds
from keras_reformer.ops.vocabulary import known_token_ids


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerBackbone(SavesSeeds, ReformerModel):
    """The Reformer's stack: token ids to hidden states.

    Token and position embeddings, a `ReversibleSequence` of pre-normalized
    attention and feed-forward branches, and a final normalization.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of embeddings and of each residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length; sets the position table
            and the number of buckets.
        attention_layers: tuple of `"local"` and `"lsh"`, cycled over the
            depth. Defaults to `("local", "lsh")`.
        key_dim: int. Size of each head's keys and values. Defaults to
            `hidden_dim // num_heads`.
        num_hashes: int. Hash rounds of LSH layers. Defaults to `4`.
        num_buckets: even int, list of them, or None for the number that
            `max_sequence_length` implies. Defaults to `None`.
        chunk_length: int. Chunk of LSH layers. Defaults to `64`.
        causal: bool. Whether a token sees only earlier ones. Defaults to
            `True`.
        scope: `"bucket"` or `"chunk"`, see `LSHSelfAttention`. Defaults to
            `"bucket"`.
        dropout: float in `[0, 1)`. Dropout of embeddings, attention weights,
            feed-forward and branch outputs. Defaults to `0.0`.
        lsh_dropout: float in `[0, 1)`. Dropout of LSH layers' attention
            weights. Defaults to `dropout`.
        local_dropout: float in `[0, 1)`. The same of local layers. Defaults
            to `dropout`.
        recompute: bool. Whether the backward pass rebuilds activations.
            Defaults to `True`.
        local_chunk_length: int. Chunk of local layers. Defaults to
            `chunk_length`.
        lsh_num_chunks_before: int. Defaults to `1`.
        lsh_num_chunks_after: int. Defaults to 0 for causal models, else 1.
        local_num_chunks_before: int. Defaults to `1`.
        local_num_chunks_after: int. Defaults to 0 for causal models, else 1.
        wrap: bool. First and last chunks are neighbours. Defaults to `False`.
        activation: Activation of the feed-forward layers. Defaults to
            `"gelu"`.
        feed_forward_chunk_length: int. Positions that feed-forward layers
            compute at a time. Defaults to what the sizes imply.
        epsilon: float. Added to variances in normalizations. Defaults to
            `1e-6`.
        position_embedding: `"axial"`, `"learned"` (one long table),
            `"sinusoidal"`, `"rotary"` (queries and keys are turned by their
            positions) or None. Defaults to `"axial"`.
        position_bias: `"alibi"`, `"relative"` (learned, by distance) or None:
            what attention adds to scores. Defaults to `None`.
        axial_shape: list of ints. Axes of the positions. Defaults to two
            near the square root of `max_sequence_length`.
        axial_dims: list of ints. Widths of the axes' tables. Defaults to a
            quarter for the first axis and the rest for the last.
        merge: `"concat"` or `"mean"` of the streams. Defaults to `"concat"`.
        normalization: `"layer_norm"` or `"rms_norm"`. Defaults to
            `"layer_norm"`.
        shared_dropout: bool. A draw of dropout counts for all positions, or
            in attention for all chunks, heads and examples, as in the
            paper's code. Defaults to `False`.
        stochastic_depth: float in `[0, 1)`. Share of examples for which
            training leaves out a block; each block draws for itself.
            Defaults to `0.0`.
        kernel_initializer: Initializer of all blocks' kernels. Defaults to
            `"glorot_uniform"`.
        kernel_regularizer: Regularizer of all blocks' kernels.
        query_key_kernel_size: int. Positions that a query-key of an LSH layer
            is made of, see `LSHSelfAttention`. Defaults to 2 for
            `scope="bucket"`, and to 1, its own alone, as published, for
            `scope="chunk"`.
        center_hashes: bool. Whether LSH layers hash relative to the direction
            that their query-keys share. Defaults to True for
            `scope="bucket"`, unless `duplicates="importance"`, and to False,
            as published, for `scope="chunk"`.
        duplicates: `"count"`, `"discount"` or `"importance"`: how pairs that
            several hash rounds show count; see `LSHSelfAttention`. Defaults
            to `"count"`, as published.
        rotary_layers: `"local"` or `"all"`: which attention layers turn
            queries and keys for `position_embedding="rotary"`. Turned, equal
            tokens hash apart with their distance. Defaults to `"local"` where
            there is local attention, else to `"all"`.
        num_key_value_heads: int. Heads of keys and values of local layers,
            and of query-keys of LSH layers, that decoding keeps for all
            heads. Defaults to `num_heads`.
        num_global_tokens: int. First tokens, which every token sees; see
            `LSHSelfAttention`. Defaults to `0`.
        seed: int. Seed of rotations and dropout. Defaults to `None`.
        dtype: dtype policy of the layers. Streams, norms and embeddings are
            float32 at least.
        **kwargs: Base model arguments, such as `name`, and `sublayers`, a
            dict of what was set on single layers, by path, as `get_config`
            returns it.

    Call arguments:
        inputs: dict of `token_ids`, int `(batch, length)`, and optionally
            `padding_mask`, bool `(batch, length)`, True at valid tokens, and
            `segment_ids`, int `(batch, length)`, of documents packed into
            rows; a list of ids and mask; or token ids alone.
            `token_embeddings`, float `(batch, length, hidden_dim)`, may stand
            in the place of `token_ids`. Positions are added to them.
        mask: bool `(batch, length)`. Counts where there is no
            `padding_mask`; Keras fills in the mask attached to the tokens.

    Returns:
        Float tensor `(batch, length, 2 * hidden_dim)`, or `hidden_dim` wide
        for `merge="mean"`.

    Raises:
        ValueError: if an argument is out of its range, or heads do not
            divide the width and no `key_dim` is given.

    Example:

    >>> backbone = keras_reformer.ReformerBackbone(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> token_ids = keras.ops.ones((1, 300), dtype="int32")
    >>> backbone(token_ids).shape
    TensorShape([1, 300, 64])

    From embeddings, here with ten vectors in front as a trainable prompt:

    >>> prompt = keras.random.normal((1, 10, 32))
    >>> text = backbone.token_embedding(token_ids)
    >>> embeddings = keras.ops.concatenate([prompt, text], axis=1)
    >>> backbone({"token_embeddings": embeddings}).shape
    TensorShape([1, 310, 64])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451).
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_sequence_length,
        attention_layers=("local", "lsh"),
        key_dim=None,
        num_hashes=4,
        num_buckets=None,
        chunk_length=64,
        causal=True,
        scope="bucket",
        dropout=0.0,
        recompute=True,
        local_chunk_length=None,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=None,
        local_num_chunks_before=1,
        local_num_chunks_after=None,
        wrap=False,
        activation="gelu",
        feed_forward_chunk_length=None,
        epsilon=1e-6,
        position_embedding="axial",
        axial_shape=None,
        axial_dims=None,
        merge="concat",
        lsh_dropout=None,
        local_dropout=None,
        position_bias=None,
        normalization="layer_norm",
        shared_dropout=False,
        stochastic_depth=0.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        query_key_kernel_size=None,
        center_hashes=None,
        duplicates="count",
        rotary_layers=None,
        num_key_value_heads=None,
        num_global_tokens=0,
        seed=None,
        dtype=None,
        **kwargs,
    ):
        config = ReformerConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            max_sequence_length=max_sequence_length,
            attention_layers=attention_layers,
            key_dim=key_dim,
            num_hashes=num_hashes,
            num_buckets=num_buckets,
            chunk_length=chunk_length,
            causal=causal,
            scope=scope,
            dropout=dropout,
            recompute=recompute,
            local_chunk_length=local_chunk_length,
            lsh_num_chunks_before=lsh_num_chunks_before,
            lsh_num_chunks_after=lsh_num_chunks_after,
            local_num_chunks_before=local_num_chunks_before,
            local_num_chunks_after=local_num_chunks_after,
            wrap=wrap,
            activation=activation,
            feed_forward_chunk_length=feed_forward_chunk_length,
            epsilon=epsilon,
            position_embedding=position_embedding,
            axial_shape=axial_shape,
            axial_dims=axial_dims,
            merge=merge,
            lsh_dropout=lsh_dropout,
            local_dropout=local_dropout,
            position_bias=position_bias,
            normalization=normalization,
            shared_dropout=shared_dropout,
            stochastic_depth=stochastic_depth,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            query_key_kernel_size=query_key_kernel_size,
            center_hashes=center_hashes,
            duplicates=duplicates,
            rotary_layers=rotary_layers,
            num_key_value_heads=num_key_value_heads,
            num_global_tokens=num_global_tokens,
            seed=seed,
        ).resolve()
        check_base_arguments(kwargs)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        sublayers = Sublayers(kwargs.pop("sublayers", None))

        # === Layers ===
        made = make_layers(config, policy)._asdict()
        trainable = kwargs.get("trainable", True)
        layers = BackboneLayers(**sublayers.make_all(made, trainable))

        # === Functional model ===
        inputs = token_inputs()
        hidden = layers.before_normalization(inputs)
        outputs = layers.normalization(hidden)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        # The Functional constructor ignores `dtype`.
        self.dtype_policy = policy
        self._config = config
        self._backbone_layers = layers
        self._sublayers = sublayers
        self.token_embedding = layers.token_embedding
        self.position_embedding = layers.position_embedding
        self.sequence = layers.sequence
        self.normalization = layers.normalization

    @property
    def vocabulary_size(self):
        """Number of token ids."""
        return self._config.vocabulary_size

    @property
    def max_sequence_length(self):
        """Greatest length of the inputs."""
        return self._config.max_sequence_length

    def call(self, inputs, training=None, mask=None):
        return self.normalization(
            self.before_normalization(inputs, training, mask)
        )

    def before_normalization(self, inputs, training=None, mask=None):
        """Hidden states before the final `normalization`.

        A loss in chunks normalizes them in chunks too: at half a million
        positions each tensor of this size is a gigabyte.

        Args:
            inputs: as the model takes them.
            training: bool.
            mask: as the model takes it.

        Returns:
            Float tensor of the outputs' shape.
        """
        return self._backbone_layers.before_normalization(
            self._known(self.complete_inputs(inputs, mask)), training=training
        )

    def _known(self, inputs):
        """Complete inputs whose token ids are in the vocabulary."""
        if "token_ids" not in inputs:
            return inputs
        known = known_token_ids(
            inputs["token_ids"], inputs["padding_mask"], self.vocabulary_size
        )
        return {**inputs, "token_ids": known}

    def complete_inputs(self, inputs, mask=None):
        inputs = super().complete_inputs(inputs, mask)
        width = self._config.hidden_dim
        return with_checked_sizes(inputs, self.max_sequence_length, width)

    def embed(self, token_ids, start_index=0):
        """Token embeddings and, added to them, positions.

        A call of the model on `token_embeddings` adds positions itself, so it
        takes the outputs of the layer `token_embedding`, not these.

        Args:
            token_ids: Integer tensor of shape `(batch, length)`.
            start_index: int, or int32 tensor `(batch,)`. Position of the
                first token of each row. Defaults to `0`.

        Returns:
            Float tensor of shape `(batch, length, hidden_dim)`.
        """
        return self._backbone_layers.embed(
            {"token_ids": token_ids}, start_index
        )

    def prefill(self, token_ids, padding_mask, capacity):
        """The outputs for prompts, and the cache to go on from.

        Args:
            token_ids: int32 tensor of shape `(batch, length)`, or a dict of
                `token_embeddings`.
            padding_mask: Boolean tensor of shape `(batch, length)`, True at
                valid tokens, which come first.
            capacity: int or scalar tensor. Greatest number of positions.

        Returns:
            The model's outputs, and a structure of tensors whose first axis
            is the batch.
        """
        inputs = self.complete_inputs(token_ids, padding_mask)
        return self._backbone_layers.prefill(inputs, capacity)

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
        x = self.embed(token_ids, positions)
        x, cache = self.sequence.decode(x, cache, positions, constants)
        return self.normalization(x), cache

    def decode_constants(self):
        """The part of `decode` that is equal in all steps of a loop."""
        return self.sequence.decode_constants()

    def lsh_layers(self):
        """The `LSHSelfAttention` layers by the index of their block."""
        layers = [block.attention.layer for block in self.sequence.blocks]
        return {
            index: layer
            for index, layer in enumerate(layers)
            if isinstance(layer, LSHSelfAttention)
        }

    def get_config(self):
        config = {
            **self._config.as_dict(),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        changes = self._sublayers.changes(self.trainable)
        return {**config, "sublayers": changes} if changes else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Files from before these options have weights without them.
        before = {
            "query_key_kernel_size": 1,
            "center_hashes": False,
            "rotary_layers": "all",
        }
        return cls(**{**before, **config})
