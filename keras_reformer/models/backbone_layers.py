"""The layers of a backbone, made from its config."""

import random
from typing import Any, NamedTuple

import keras

from keras_reformer.layers import (
    AlibiBias,
    AxialPositionEmbedding,
    CrossAttention,
    Dropout,
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    RelativePositionBias,
    ReversibleBlock,
    ReversibleSequence,
    RotaryEmbedding,
    SinePositionEncoding,
)
from keras_reformer.layers.pre_normalization import make_normalization
from keras_reformer.layers.reversible_block import stream_dtype
from keras_reformer.models.padding import (
    CutToLength,
    PadToMultiple,
    published_multiple,
)
from keras_reformer.ops.attention.segments import Segments


class BackboneLayers(NamedTuple):
    """The layers of a backbone, in the order of the forward pass.

    A layer that the backbone does not have is None. The methods make the
    Functional graph from symbolic tensors, and are what a call of the model
    runs.
    """

    token_embedding: keras.layers.Layer
    position_embedding: keras.layers.Layer | None
    add: Any
    dropout: keras.layers.Layer
    pad: Any
    cut: Any
    sequence: keras.layers.Layer
    normalization: keras.layers.Layer

    def embed(self, inputs, start_index=0):
        """Token embeddings plus position embeddings of complete inputs."""
        x = inputs.get("token_embeddings")
        if x is None:
            x = self.token_embedding(inputs["token_ids"])
        if self.position_embedding is None:
            return x
        if x.shape[0] == 0:
            # Keras's Add fails at `(0, 1, dim)`.
            return x
        options = {"start_index": start_index}
        if "segment_ids" in inputs:
            segments = Segments.of(inputs["segment_ids"])
            options = {"positions": segments.positions}
        return self.add([x, self.position_embedding(x, **options)])

    def before_normalization(self, inputs, context=None, **options):
        """Hidden states before the final normalization.

        Args:
            inputs: what `inputs.complete` returns.
            context: dict of `context` and `context_mask` of a decoder's
                cross-attention, or None.
            **options: `training`, where Keras's call context lacks it.
        """
        x = self.embed(inputs, inputs.get("start_index", 0))
        x = self.dropout(x, **options)
        padded, mask = self._padded(x, inputs["padding_mask"])
        options.update(context or {})
        if "segment_ids" in inputs:
            options["segment_ids"] = inputs["segment_ids"]
        return self._cut(self.sequence(padded, mask=mask, **options), x)

    def prefill(self, inputs, capacity, context=None):
        """Outputs at inference, and the stack's cache."""
        if "segment_ids" in inputs:
            raise ValueError(
                "A cache goes on with one document in each row. Expected "
                "prompts in rows of their own, without segment_ids. Received: "
                f"segment_ids of shape {tuple(inputs['segment_ids'].shape)}"
            )
        if "start_index" in inputs:
            raise ValueError(
                "A cache counts positions from 0. Expected prompts without "
                "start_index. Received: start_index of shape "
                f"{tuple(inputs['start_index'].shape)}"
            )
        x = self.embed(inputs)
        padded, mask = self._padded(x, inputs["padding_mask"])
        outputs, cache = self.sequence.prefill(
            padded, mask, capacity, **(context or {})
        )
        return self.normalization(self._cut(outputs, x)), cache

    def _padded(self, x, mask):
        return (x, mask) if self.pad is None else self.pad(x, mask)

    def _cut(self, outputs, like):
        return outputs if self.pad is None else self.cut(outputs, like)


def make_layers(config, policy, cross_key_value_heads=None):
    """Makes the layers of a resolved `ReformerConfig`, not yet connected.

    Args:
        config: `ReformerConfig`.
        policy: dtype policy.
        cross_key_value_heads: int. Heads of keys and values of the attention
            to a context that a decoder's blocks have. Defaults to `None`: no
            such attention.
    """
    streams = stream_dtype(policy)
    positions = _position_layer(config, streams)
    pad = _pad_layer(config, streams)
    return BackboneLayers(
        keras.layers.ReversibleEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            embeddings_initializer=keras.initializers.RandomNormal(0.0, 1.0),
            reverse_dtype=keras.dtype_policies.get(policy).compute_dtype,
            dtype=streams,
            name="token_embedding",
        ),
        positions,
        positions and keras.layers.Add(dtype=streams, name="embedding"),
        Dropout(
            config.dropout,
            shared_axes=1 if config.shared_dropout else None,
            seed=_seed(config.seed, 0),
            dtype=streams,
            name="dropout",
        ),
        pad,
        pad and CutToLength(dtype=streams, name="cut"),
        ReversibleSequence(
            [
                _block(config, index, policy, cross_key_value_heads)
                for index in range(config.num_layers)
            ],
            merge=config.merge,
            recompute=config.recompute,
            dtype=policy,
            name="sequence",
        ),
        make_normalization(config.normalization, config.epsilon, streams),
    )


def _position_layer(config, dtype):
    """The layer whose outputs are added to token embeddings, or None."""
    kind, name = config.position_embedding, "position_embedding"
    if kind == "sinusoidal":
        return SinePositionEncoding(dtype=dtype, name=name)
    if kind not in ("axial", "learned"):
        return None
    shape, dims = config.axial_shape, config.axial_dims
    if kind == "learned":
        # A learned table is a grid of one axis.
        shape, dims = [config.max_sequence_length], [config.hidden_dim]
    return AxialPositionEmbedding(
        shape,
        dims,
        # At the scale of token embeddings, positions would dominate the
        # similarity of tokens, which attention relies on.
        embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.1),
        dtype=dtype,
        name=name,
    )


def _pad_layer(config, dtype):
    multiple, above = published_multiple(config)
    if multiple is None:
        return None
    return PadToMultiple(multiple, above, dtype=dtype, name="pad")


def _block(config, index, policy, cross_key_value_heads):
    """A reversible block, with one seed for each of its layers."""
    kinds = config.attention_layers
    kind = kinds[index % len(kinds)]
    seeds = [_seed(config.seed, 4 * index + step) for step in range(1, 5)]
    make = _lsh_layer if kind == "lsh" else _local_layer
    feed_forward = FeedForward(
        config.intermediate_dim,
        activation=config.activation,
        dropout=config.dropout,
        chunk_length=config.feed_forward_chunk_length,
        name="feed_forward",
        **_common_arguments(config, seeds[1], policy),
    )
    # Branches of one seed drop the same examples: whole blocks.
    depth_seed = random.randint(1, 10**9) if seeds[0] is None else seeds[0]

    def branch(layer, seed, name):
        return PreNormalization(
            layer,
            epsilon=config.epsilon,
            dropout=config.dropout,
            seed=seed,
            normalization=config.normalization,
            shared_dropout=config.shared_dropout,
            stochastic_depth=config.stochastic_depth,
            stochastic_depth_seed=depth_seed,
            dtype=policy,
            name=name,
        )

    return ReversibleBlock(
        branch(make(config, seeds[0], policy), seeds[2], "attention"),
        branch(feed_forward, seeds[3], "feed_forward"),
        None
        if cross_key_value_heads is None
        else _cross_branch(
            config, index, policy, branch, cross_key_value_heads
        ),
        dtype=policy,
        name=f"block_{index}",
    )


def _cross_branch(config, index, policy, branch, key_value_heads):
    """The branch of cross-attention, with seeds after all of the others."""
    first = 4 * config.num_layers + 2 * index
    seeds = [_seed(config.seed, first + step) for step in (1, 2)]
    layer = CrossAttention(
        num_heads=config.num_heads,
        key_dim=config.key_dim,
        dropout=config.dropout,
        num_key_value_heads=key_value_heads,
        name="cross_attention",
        **_common_arguments(config, seeds[0], policy),
    )
    return branch(layer, seeds[1], "cross_attention")


def _lsh_layer(config, seed, policy):
    return LSHSelfAttention(
        num_hashes=config.num_hashes,
        num_buckets=config.num_buckets,
        chunk_length=config.chunk_length,
        num_chunks_before=config.lsh_num_chunks_before,
        num_chunks_after=config.lsh_num_chunks_after,
        scope=config.scope,
        query_key_kernel_size=config.query_key_kernel_size,
        center_hashes=config.center_hashes,
        duplicates=config.duplicates,
        # A key is its own query, so heads that share keys share weights too:
        # they are one head, whose values are those of all.
        num_heads=config.num_key_value_heads,
        value_dim=_inner_dim(config) // config.num_key_value_heads,
        name="lsh_self_attention",
        **_attention_arguments(config, "lsh", seed, policy),
    )


def _local_layer(config, seed, policy):
    return LocalSelfAttention(
        chunk_length=config.local_chunk_length,
        num_chunks_before=config.local_num_chunks_before,
        num_chunks_after=config.local_num_chunks_after,
        num_heads=config.num_heads,
        num_key_value_heads=config.num_key_value_heads,
        name="local_self_attention",
        **_attention_arguments(config, "local", seed, policy),
    )


def _attention_arguments(config, kind, seed, policy):
    dropout = getattr(config, f"{kind}_dropout")
    return {
        "key_dim": config.key_dim,
        "causal": config.causal,
        "num_global_tokens": config.num_global_tokens,
        "wrap": config.wrap,
        "dropout": config.dropout if dropout is None else dropout,
        "position_bias": _bias_layer(config, kind, policy),
        "rotary_embedding": _rotary_layer(config, kind, policy),
        **_common_arguments(config, seed, policy),
    }


def _common_arguments(config, seed, policy):
    """Arguments that all layers with projections take."""
    return {
        "shared_dropout": config.shared_dropout,
        "kernel_initializer": config.kernel_initializer,
        "kernel_regularizer": config.kernel_regularizer,
        "seed": seed,
        "dtype": policy,
    }


def _inner_dim(config):
    """Size of all heads' values."""
    return config.num_heads * config.key_dim


def _bias_layer(config, kind, policy):
    if config.position_bias is None:
        return None
    heads = config.num_key_value_heads if kind == "lsh" else config.num_heads
    options = {"dtype": policy, "name": "position_bias"}
    if config.position_bias == "alibi":
        return AlibiBias(heads, **options)
    return RelativePositionBias(heads, causal=config.causal, **options)


def _rotary_layer(config, kind, policy):
    if config.position_embedding != "rotary":
        return None
    if config.rotary_layers == "local" and kind == "lsh":
        return None
    return RotaryEmbedding(dtype=policy, name="rotary_embedding")


def _seed(seed, index):
    """The seed of one layer; None stays None."""
    return None if seed is None else seed * 1000 + index
