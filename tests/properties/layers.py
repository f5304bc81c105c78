"""Cases of the public layers."""

import functools

import numpy as np
from hypothesis import strategies as st

import keras_reformer
from tests.properties import strategies as some
from tests.properties.holds import Case


def _layers(make, *strategies, **named):
    """Descriptions of layers, each of which makes its own one."""
    return st.builds(
        lambda arguments, options: functools.partial(
            make, *arguments, **options
        ),
        st.tuples(*strategies),
        st.fixed_dictionaries(named),
    )


_DENSE = {
    "kernel_initializer": some.INITIALIZER,
    "bias_initializer": some.INITIALIZER,
    "kernel_regularizer": some.REGULARIZER,
    "use_bias": some.BOOL,
    "seed": some.SEED,
}
_HEADS = {"num_heads": st.just(some.HEADS), "key_dim": st.sampled_from([2, 4])}
_ATTENTION = {
    **_DENSE,
    "value_dim": some.SMALL,
    "dropout": some.RATE,
    "shared_dropout": some.BOOL,
    "position_bias": _layers(
        keras_reformer.AlibiBias, st.sampled_from([2, 2, 3])
    ),
    "rotary_embedding": _layers(keras_reformer.RotaryEmbedding),
    "causal": some.BOOL,
}
_CHUNKS = {
    **_ATTENTION,
    "chunk_length": st.integers(1, 9),
    "num_chunks_before": st.integers(0, 2),
    "num_chunks_after": st.integers(0, 2),
    "wrap": some.BOOL,
}
_LSH = {
    **_CHUNKS,
    "num_hashes": some.SMALL,
    "num_buckets": st.sampled_from([None, 2, 4, 3, [2, 4], (2, 2)]),
    "scope": st.sampled_from(["bucket", "chunk"]),
    "exact_below": st.sampled_from([None, 0, 6]),
    "discount_duplicates": some.BOOL,
    "query_key_kernel_size": some.SMALL,
    "center_hashes": some.BOOL,
    "duplicates": st.sampled_from(
        [None] * 4 + ["count", "discount", "importance"]
    ),
}


def _sequence_case(draw, make, required, optional, masks=True, starts=False):
    """A layer that is called on `(batch, length, hidden_dim)`."""
    options = some.options(draw, required, optional)
    options["dtype"] = some.policy(draw)
    batch, length = some.batch_and_length(draw)
    shape = draw(
        st.sampled_from(
            [(batch, length, some.WIDTH)] * 40
            + [(length, 4), (4,), (), (2,) * 4]
        )
    )
    call = some.some_call(draw, training=some.BOOL)
    if masks and draw(st.booleans()):
        call["mask"] = some.mask(draw, batch, length)
    if starts and draw(st.booleans()):
        call["start_index"] = draw(_STARTS)
    inputs = (some.vectors(draw, *shape),)
    return Case(make, options, inputs, call, some.execution(draw))


_STARTS = st.one_of(
    st.integers(-2, 9), some.WRONG, st.just(np.array([3, 1], "int32"))
)


@st.composite
def lsh_self_attention(draw):
    return _sequence_case(draw, keras_reformer.LSHSelfAttention, _HEADS, _LSH)


@st.composite
def local_self_attention(draw):
    make = keras_reformer.LocalSelfAttention
    return _sequence_case(draw, make, _HEADS, _CHUNKS)


@st.composite
def multi_head_attention(draw):
    more = {"share_query_key": some.BOOL, "query_chunk_length": some.SMALL}
    case = _sequence_case(
        draw, keras_reformer.MultiHeadAttention, _HEADS, _ATTENTION | more
    )
    if draw(st.booleans()) or case.inputs[0].ndim != 3:
        return case
    keys = draw(st.integers(0, 6))
    batch, queries, _ = case.inputs[0].shape
    call = dict(case.call)
    call.pop("mask", None)
    if draw(st.booleans()):
        call["value_mask"] = some.mask(draw, batch, keys)
    if draw(st.booleans()):
        call["attention_mask"] = draw(
            st.one_of(
                some.WRONG_ARRAYS,
                st.just(np.ones((batch, queries, keys), bool)),
                st.just(np.zeros((1, queries, keys), bool)),
                st.just(np.ones((queries, keys), bool)),
            )
        )
    if draw(st.booleans()):
        call["attention_bias"] = draw(
            st.one_of(
                some.WRONG_ARRAYS,
                st.just(np.ones((1, 2, queries, keys), "float32")),
                st.just(np.ones((1, 2, queries, keys + 1), "float32")),
            )
        )
    inputs = (case.inputs[0], some.vectors(draw, batch, keys, 3))
    return case._replace(inputs=inputs, call=call)


@st.composite
def cross_attention(draw):
    own = ("position_bias", "rotary_embedding", "causal")
    options = {k: v for k, v in _ATTENTION.items() if k not in own}
    options["query_chunk_length"] = some.SMALL
    case = _sequence_case(draw, keras_reformer.CrossAttention, _HEADS, options)
    batch, *_ = case.inputs[0].shape or (1,)
    keys = draw(st.integers(0, 6))
    rows = draw(st.sampled_from([batch] * 9 + [batch + 1]))
    call = dict(case.call)
    if draw(st.booleans()):
        call["context_mask"] = some.mask(draw, batch, keys)
    context = draw(
        st.sampled_from([some.vectors(draw, rows, keys, 3)] * 9 + [None])
    )
    return case._replace(inputs=(case.inputs[0], context), call=call)


@st.composite
def feed_forward(draw):
    more = {
        "activation": st.sampled_from(["gelu", "relu", None, "tanh"]),
        "dropout": some.RATE,
        "gated": some.BOOL,
        "chunk_length": st.integers(1, 9),
        "shared_dropout": some.BOOL,
    }
    return _sequence_case(
        draw,
        keras_reformer.FeedForward,
        {"intermediate_dim": some.SMALL},
        _DENSE | more,
        masks=False,
    )


@st.composite
def dropout(draw):
    axes = st.sampled_from([None, 1, -1, 3, (1, 2), [0], -4])
    optional = {"shared_axes": axes, "seed": some.SEED}
    return _sequence_case(
        draw,
        keras_reformer.Dropout,
        {"rate": some.RATE},
        optional,
        masks=False,
    )


@st.composite
def pre_normalization(draw):
    optional = {
        "epsilon": st.sampled_from([1e-12, 1e-6, 1.0]),
        "dropout": some.RATE,
        "normalization": st.sampled_from(["layer_norm", "rms_norm"]),
        "shared_dropout": some.BOOL,
        "stochastic_depth": some.RATE,
        "stochastic_depth_seed": some.SEED,
        "seed": some.SEED,
    }
    return _sequence_case(
        draw, keras_reformer.PreNormalization, {"layer": _BRANCHES}, optional
    )


_BRANCHES = st.one_of(
    _layers(keras_reformer.FeedForward, some.SMALL),
    _layers(
        keras_reformer.LSHSelfAttention,
        st.just(2),
        st.just(2),
        chunk_length=some.SMALL,
        dropout=some.RATE,
    ),
    _layers(keras_reformer.LocalSelfAttention, st.just(2), st.just(2)),
)


def _stream_case(draw, make, required, optional):
    """A layer that is called on one stream or on a pair of them."""
    case = _sequence_case(draw, make, required, optional)
    if draw(st.integers(0, 3)) == 0:
        return case
    first = case.inputs[0]
    others = [first, first, first, first[None], first[..., None]]
    second = draw(st.sampled_from(others))
    return case._replace(inputs=((first, second),))


@st.composite
def reversible_block(draw):
    branches = {"attention": _BRANCHES, "feed_forward": _BRANCHES}
    return _stream_case(
        draw, keras_reformer.ReversibleBlock, branches, {"name": st.just("b")}
    )


@st.composite
def reversible_sequence(draw):
    block = _layers(keras_reformer.ReversibleBlock, _BRANCHES, _BRANCHES)
    required = {"blocks": st.lists(block, min_size=0, max_size=2)}
    optional = {
        "merge": st.sampled_from(["concat", "mean", None]),
        "recompute": some.BOOL,
    }
    make = keras_reformer.ReversibleSequence
    return _stream_case(draw, make, required, optional)


@st.composite
def axial_position_embedding(draw):
    required = {
        "shape": st.sampled_from([(4, 5), [20], (2, 2, 5), (3, 2)]),
        "dims": st.sampled_from([(1, 3), [4], (1, 1, 2), (2, 2), (2, 3)]),
    }
    optional = {
        "embeddings_initializer": some.INITIALIZER,
        "embeddings_regularizer": some.REGULARIZER,
    }
    make = keras_reformer.AxialPositionEmbedding
    return _sequence_case(draw, make, required, optional, False, True)


def _waves(draw, make):
    optional = {"max_wavelength": st.sampled_from([1, 10000, 1e-3, 1e30])}
    return _sequence_case(draw, make, {}, optional, False, True)


@st.composite
def rotary_embedding(draw):
    return _waves(draw, keras_reformer.RotaryEmbedding)


@st.composite
def sine_position_encoding(draw):
    return _waves(draw, keras_reformer.SinePositionEncoding)


def _bias_case(draw, make, optional):
    options = some.options(draw, {"num_heads": some.SMALL}, optional)
    options["dtype"] = some.policy(draw)
    queries, keys = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    inputs = (
        np.arange(queries, dtype="int32")[:, None],
        np.arange(keys, dtype="int32") * draw(st.sampled_from([1, 10**6])),
        np.zeros((1, 1, 1), "int32"),
    )
    return Case(make, options, inputs, {}, some.execution(draw))


@st.composite
def alibi_bias(draw):
    optional = {"alibi_bias_max": st.sampled_from([8, 0.5, 100])}
    return _bias_case(draw, keras_reformer.AlibiBias, optional)


@st.composite
def relative_position_bias(draw):
    optional = {
        "num_buckets": st.integers(1, 9),
        "max_distance": st.integers(1, 20),
        "causal": some.BOOL,
        "embeddings_initializer": some.INITIALIZER,
    }
    return _bias_case(draw, keras_reformer.RelativePositionBias, optional)


CASES = {
    strategy.__name__: strategy
    for strategy in (
        lsh_self_attention,
        local_self_attention,
        multi_head_attention,
        cross_attention,
        feed_forward,
        reversible_block,
        reversible_sequence,
        axial_position_embedding,
        rotary_embedding,
        sine_position_encoding,
        alibi_bias,
        relative_position_bias,
        dropout,
        pre_normalization,
    )
}
