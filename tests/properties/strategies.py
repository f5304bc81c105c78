"""Arguments and arrays, right and wrong."""

import numpy as np
from hypothesis import strategies as st

POLICIES = ("float32", "float64", "mixed_bfloat16", "mixed_float16")
HEADS, WIDTH = 2, 4

# What users hand over by mistake.
WRONG = st.sampled_from(
    [
        None,
        0,
        -1,
        1.5,
        2**40,
        10**400,
        1e-300,
        1e300,
        float("nan"),
        float("inf"),
        True,
        "",
        "wrong",
        b"wrong",
        [],
        [1, "wrong"],
        [0.5],
        {},
        {"wrong": 1},
        np.zeros((2, 2)),
        np.float32(2.5),
        object,
    ]
)
WRONG_ARRAYS = st.sampled_from(
    [
        np.zeros(()),
        np.zeros((3,), bool),
        np.zeros((1, 1, 1, 1, 1), "float32"),
        np.array("wrong"),
        np.array([["wrong"]]),
        "wrong",
        [1, "wrong"],
        object,
        7,
    ]
)
BOOL = st.booleans()
RATE = st.sampled_from([0.0, 0.1, 0.9, 0.999])
SEED = st.one_of(st.none(), st.integers(-3, 2**33))
SMALL = st.integers(1, 3)
INITIALIZER = st.sampled_from(["zeros", "ones", "he_normal"])
REGULARIZER = st.sampled_from([None, "l2"])


def options(draw, required, optional, spoil=True):
    """Arguments of a layer: all required ones and some of the optional.

    Args:
        draw: hypothesis's.
        required: dict of strategies by argument.
        optional: dict of strategies by argument.
        spoil: bool. Whether one of them may be wrong.
    """
    given = {name: draw(strategy) for name, strategy in required.items()}
    some = draw(
        st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=5)
    )
    given |= {name: draw(optional[name]) for name in some}
    if spoil and draw(st.integers(0, 4)) == 0:
        names = sorted(required) * 2 + sorted(optional)
        name = draw(st.sampled_from(names))
        wrong = draw(WRONG)
        # Keras takes arrays for initializers, of the variable's shape.
        if not (name.endswith("initializer") and hasattr(wrong, "dtype")):
            given[name] = wrong
    return given


def policy(draw):
    return draw(st.sampled_from(POLICIES))


def execution(draw):
    """Mostly eager: a graph takes as long as ten eager calls."""
    kinds = ["eager"] * 14 + ["graph"] + ["xla"]
    return draw(st.sampled_from(kinds))


def vectors(draw, *shape):
    """Float arrays: random ones, equal ones, zeros, large ones, other types."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=shape)
    x *= draw(st.sampled_from([1.0, 1.0, 1.0, 0.0, 30.0, 1e-6]))
    if draw(st.integers(0, 5)) == 0:
        x = np.full(shape, x.sum())
    kinds = ["float32"] * 30 + ["float64", "float16", "int32", "bool", "str"]
    return x.astype(draw(st.sampled_from(kinds)))


def batch_and_length(draw):
    return draw(st.sampled_from([1, 2, 2, 2, 0])), draw(
        st.one_of(st.integers(0, 4), st.integers(1, 19))
    )


def mask(draw, batch, length):
    """A mask of tokens, of a dtype that users have, or a wrong one."""
    kind = draw(st.integers(0, 29))
    if kind == 28:
        return draw(WRONG_ARRAYS)
    if kind == 29:
        batch, length = draw(
            st.sampled_from(
                [(batch + 1, length), (batch, length + 1), (1, length)]
            )
        )
    kept = draw(st.sampled_from([0.0, 0.5, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    found = rng.random((batch, length)) < kept
    return found.astype(draw(st.sampled_from(["bool", "int32", "float32"])))


def some_call(draw, **strategies):
    """Some of a call's arguments."""
    return {
        name: draw(strategy)
        for name, strategy in strategies.items()
        if draw(st.booleans())
    }
