"""Cases of the models and of the converter."""

import functools

import numpy as np
from hypothesis import strategies as st

import keras_reformer
from tests.properties import strategies as some
from tests.properties.holds import Case
from tests.support import published

_VOCABULARY, _LONGEST = 11, 24
_SIZES = {
    "vocabulary_size": st.just(_VOCABULARY),
    "num_layers": st.sampled_from([1, 2]),
    "num_heads": st.sampled_from([1, 2]),
    "hidden_dim": st.sampled_from([4, 6]),
    "intermediate_dim": some.SMALL,
    "max_sequence_length": st.just(_LONGEST),
    "chunk_length": st.integers(2, 9),
}
_OPTIONS = {
    "attention_layers": st.sampled_from(["lsh", ("local",), ["local", "lsh"]]),
    "key_dim": some.SMALL,
    "num_hashes": some.SMALL,
    "num_buckets": st.sampled_from([None, 2, [2, 4], 3]),
    "causal": some.BOOL,
    "scope": st.sampled_from(["bucket", "chunk"]),
    "dropout": some.RATE,
    "recompute": some.BOOL,
    "local_chunk_length": st.integers(1, 9),
    "lsh_num_chunks_before": st.integers(0, 2),
    "lsh_num_chunks_after": st.integers(0, 2),
    "local_num_chunks_before": st.integers(0, 2),
    "local_num_chunks_after": st.integers(0, 2),
    "wrap": some.BOOL,
    "activation": st.sampled_from(["relu", "tanh"]),
    "feed_forward_chunk_length": some.SMALL,
    "epsilon": st.sampled_from([1e-12, 1e-3]),
    "position_embedding": st.sampled_from(
        ["axial", "learned", "sinusoidal", "rotary", None]
    ),
    "axial_shape": st.sampled_from([(4, 6), [24], (2, 2)]),
    "axial_dims": st.sampled_from([(1, 3), [4], (2, 4)]),
    "merge": st.sampled_from(["concat", "mean"]),
    "lsh_dropout": some.RATE,
    "local_dropout": some.RATE,
    "position_bias": st.sampled_from(["alibi", "relative", None]),
    "normalization": st.sampled_from(["layer_norm", "rms_norm"]),
    "shared_dropout": some.BOOL,
    "stochastic_depth": some.RATE,
    "kernel_initializer": some.INITIALIZER,
    "kernel_regularizer": some.REGULARIZER,
    "seed": some.SEED,
}


def _inputs(draw):
    """What a model is called on: ids alone, or a dict of several things."""
    batch, length = some.batch_and_length(draw)
    if draw(st.integers(0, 19)) == 0:
        length = _LONGEST + 1
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    low, high = draw(
        st.sampled_from([(0, _VOCABULARY)] * 30 + [(-1, 1), (5, 20)])
    )
    ids = rng.integers(low, high, (batch, length))
    kinds = ["int32"] * 30 + ["int64", "uint8", "float32", "float16", "bool"]
    ids = ids.astype(draw(st.sampled_from(kinds)))
    ids = draw(st.sampled_from([ids] * 40 + [ids[:1].ravel(), ids[..., None]]))
    if draw(st.booleans()):
        return ids
    inputs = {"token_ids": ids, "padding_mask": some.mask(draw, batch, length)}
    if draw(st.integers(0, 4)) == 0:
        width = draw(st.sampled_from([4, 6]))
        del inputs["token_ids"]
        inputs["token_embeddings"] = some.vectors(draw, batch, length, width)
    return inputs


def _model_case(draw, make, optional=(), labels=None):
    options = some.options(draw, _SIZES, _OPTIONS | dict(optional))
    options["dtype"] = some.policy(draw)
    inputs = _inputs(draw)
    call = some.some_call(draw, training=some.BOOL)
    fit = None
    if labels and draw(st.integers(0, 3)) == 0:
        fit = functools.partial(_fit, x=inputs, labels=labels)
    execution = draw(st.sampled_from(["eager"] * 24 + ["graph"]))
    return Case(make, options, (inputs,), call, execution, fit)


def _fit(model, x, labels):
    """The loss of one step."""
    tokens = x
    if isinstance(x, dict):
        tokens = x.get("token_ids", x.get("token_embeddings"))
    batch, length = tokens.shape[:2]
    if not batch:
        return 0.0
    loss, y = labels(batch, length)
    model.compile("sgd", loss, run_eagerly=True)
    history = model.fit(x, y, batch_size=batch, verbose=0)
    return history.history["loss"]


def _classes(batch, length):
    return "mse", np.zeros((batch, 2), "float32")


def _spans(batch, length):
    zeros = np.zeros((batch, length), "float32")
    return {"start": "mse", "end": "mse"}, {"start": zeros, "end": zeros}


def _token_labels(batch, length):
    return None, np.arange(batch * length).reshape(batch, length) % 3 - 1


@st.composite
def backbone(draw):
    return _model_case(draw, keras_reformer.ReformerBackbone)


@st.composite
def causal_lm(draw):
    tie = {"tie_embeddings": some.BOOL}
    make = keras_reformer.ReformerCausalLM
    return _model_case(draw, make, tie, _token_labels)


@st.composite
def masked_lm(draw):
    tie = {"tie_embeddings": some.BOOL}
    make = keras_reformer.ReformerMaskedLM
    return _model_case(draw, make, tie, _token_labels)


@st.composite
def classifier(draw):
    more = {"num_classes": st.just(2), "head_dropout": some.RATE}
    case = _model_case(draw, keras_reformer.ReformerClassifier, more, _classes)
    case.options.setdefault("num_classes", 2)
    return case


@st.composite
def question_answering(draw):
    make = keras_reformer.ReformerQuestionAnswering
    return _model_case(draw, make, labels=_spans)


@st.composite
def from_huggingface(draw):
    config = dict(published.CONFIG)
    changes = {
        "vocab_size": st.just(_VOCABULARY),
        "hidden_size": st.sampled_from([4, 12]),
        "feed_forward_size": some.SMALL,
        "num_attention_heads": some.SMALL,
        "attention_head_size": some.SMALL,
        "attn_layers": st.sampled_from([["lsh"], ["local"]]),
        "num_buckets": st.sampled_from([None, 2, [2, 4]]),
        "num_hashes": some.SMALL,
        "local_attn_chunk_length": st.integers(1, 9),
        "lsh_attn_chunk_length": st.integers(1, 9),
        "axial_pos_embds_dim": st.sampled_from([[4, 8], [1, 3]]),
        "is_decoder": some.BOOL,
        "hidden_act": st.sampled_from(["relu", "gelu", "silu"]),
        "layer_norm_eps": st.sampled_from([1e-12, 1e-3]),
    }
    names = st.lists(st.sampled_from(sorted(changes)), max_size=4)
    config |= {name: draw(changes[name]) for name in draw(names)}
    make = draw(st.sampled_from([published.body, published.language_model]))
    weights = make(config, draw(st.integers(0, 9)))
    if draw(st.integers(0, 2)) == 0:
        config[draw(st.sampled_from(sorted(config)))] = draw(some.WRONG)
    if draw(st.integers(0, 2)) == 0:
        weights = draw(_wrong_weights(weights))
    options = {"config": config, "weights": weights}
    if draw(st.integers(0, 4)) == 0:
        options["rotations"] = draw(_rotations(config))
    return Case(
        keras_reformer.convert.from_huggingface,
        options,
        (_inputs(draw),),
        {},
        names=(*config, *_SIZES, *_OPTIONS, "layer"),
    )


@st.composite
def _wrong_weights(draw, weights):
    if draw(st.integers(0, 5)) == 0:
        return draw(some.WRONG)
    name = draw(st.sampled_from(sorted(weights)))
    changed = dict(weights)
    other = draw(
        st.one_of(
            some.WRONG, some.WRONG_ARRAYS, st.just(weights[name][..., :1])
        )
    )
    changed[draw(st.sampled_from([name, f"{name}.more", 3]))] = other
    return changed


def _rotations(config):
    heads, dim = config["num_attention_heads"], config["attention_head_size"]
    fitting = isinstance(heads, int) and isinstance(dim, int)
    shape = (
        (max(heads, 1), max(dim, 1), 3, 2) if fitting and heads < 9 else (1,)
    )
    return st.one_of(
        some.WRONG,
        st.sampled_from([{0: np.ones((2, 2))}, {1: 3}, {"1": None}]),
        st.just({1: np.ones(shape if len(shape) == 4 and dim < 9 else (1,))}),
    )


CASES = {
    strategy.__name__: strategy
    for strategy in (
        backbone,
        causal_lm,
        masked_lm,
        classifier,
        question_answering,
        from_huggingface,
    )
}
