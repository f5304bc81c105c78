import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.generation import (
    Loop,
    TopPSampler,
    generate,
    get_sampler,
    stop_ids,
    stream,
)
from keras_reformer.generation.prompts import check
from tests.support.decoders import counting

TEXTS = [[0, 3, 0], [5, 1]]
FRONT = np.array([[0, 3, 0], [0, 5, 1]])
BEHIND = np.array([[0, 3, 0], [5, 1, 0]])
MASKS = np.array([[True] * 3, [True, True, False]])


def refusing(*arguments):
    raise AssertionError("no model should run")


DECODER = counting()._replace(prefill=refusing, decode=refusing)


def checked(prompts, max_length=9, **options):
    return check(prompts, max_length, DECODER, **options)


# --- What is taken ---


@pytest.mark.parametrize(
    "prompts",
    [
        TEXTS,
        tuple(map(tuple, TEXTS)),
        (text for text in TEXTS),
        [np.array(text, "uint8") for text in TEXTS],
        [tf.constant(text) for text in TEXTS],
        [[np.int64(0), tf.constant(3), 0], [5, 1]],
        np.array([*map(np.array, TEXTS)], dtype=object),
        tf.ragged.constant(TEXTS),
        {"token_ids": TEXTS},
        {"token_ids": TEXTS, "padding_mask": None},
        {"token_ids": BEHIND, "padding_mask": MASKS},
        {"token_ids": BEHIND.tolist(), "padding_mask": MASKS.astype(int)},
        {"token_ids": tf.constant(FRONT), "padding_mask": MASKS[:, ::-1]},
        {"token_ids": FRONT, "padding_mask": tf.constant(MASKS[:, ::-1])},
        {
            "token_ids": [[9, 0, 3, 0], [7, 5, 1, 9, 9]],
            "padding_mask": [[0, 1, 1, 1], [0, 1.0, 1, 0, False]],
        },
    ],
    ids=lambda prompts: f"{type(prompts).__name__}",
)
def test_prompts(prompts):
    assert checked(prompts) == TEXTS


def test_zeros_are_text_unless_they_are_padding():
    rows = keras.utils.pad_sequences([[3, 0, 4], [5]], padding="pre")
    assert checked(rows) == [[3, 0, 4], [0, 0, 5]]
    assert checked(rows, padding_id=0) == [[3, 0, 4], [5]]
    mask = {"token_ids": rows, "padding_mask": [[1, 1, 1], [0, 0, 1]]}
    assert checked(mask) == [[3, 0, 4], [5]]
    rows = [[-1, 0, 2, -1, -1], [3]]
    assert checked(rows, padding_id=np.int32(-1)) == [[0, 2], [3]]
    assert checked({"token_ids": rows}, padding_id=-1) == [[0, 2], [3]]


# The last documents are those of `TEXTS`.
PACKED = {
    "token_ids": np.array([[5, 1, 1, 0, 3, 0], [8, 2, 5, 1, 4, 4]]),
    "segment_ids": np.array([[0, 0, 1, 2, 2, 2], [0, 1, 3, 3, 4, 4]]),
    "padding_mask": np.array([[True] * 6, [True] * 4 + [False] * 2]),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {name: x.tolist() for name, x in PACKED.items()},
        {name: tf.constant(x) for name, x in PACKED.items()},
        # Padding has any ids, and may be at both ends.
        {"segment_ids": PACKED["segment_ids"] * PACKED["padding_mask"]},
        {"segment_ids": [[0, 0, 1, 2, 2, 2], [3] * 6]}
        | {"padding_mask": [[1] * 6, [0, 0, 1, 1, 0, 0]]},
        # Padding that a token tells, within a document too.
        {"padding_mask": None},
        {
            "padding_mask": None,
            "segment_ids": [[0] * 3 + [2] * 3, [0] + [3] * 5],
        }
        | {"token_ids": [[5, 1, 4, 0, 3, 0], [8, 4, 5, 1, 4, 4]]},
        # Rows of other lengths.
        {"padding_mask": None, "segment_ids": [[0, 2, 2, 2], [3, 3]]}
        | {"token_ids": [[1, 0, 3, 0], [5, 1]]},
    ],
)
def test_packed_rows_go_on_from_their_last_documents(changes):
    prompts = {**PACKED, **changes}
    options = {"padding_id": 4} if prompts["padding_mask"] is None else {}
    assert checked(prompts, max_length=3, **options) == TEXTS


def test_without_a_mask_the_last_segment_counts():
    prompts = {**PACKED, "padding_mask": None}
    assert checked(prompts) == [TEXTS[0], [4, 4]]


@pytest.mark.parametrize(
    "prompts", [[], (), np.zeros((0, 5), int), {"token_ids": []}]
)
def test_no_prompts(prompts):
    assert checked(prompts) == []


# --- What is refused ---

FLOATS = r"prompts\[0\]=array of shape \(3,\) and dtype float64"


@pytest.mark.parametrize(
    "prompts, match",
    [
        (None, "prompts=None"),
        (7, "prompts=7. A single prompt is a batch of one: `\\[prompt\\]`"),
        ([1, 2, 3], r"prompts\[0\]=1. A single prompt is a batch of one"),
        (np.arange(3), r"prompts\[0\]=.*0.* A single prompt is a batch"),
        (tf.constant([1, 2]), "A single prompt is a batch of one"),
        (tf.constant(3), "prompts=array of shape"),
        ("def f", "prompts='def f'. Turn text into token ids first"),
        (b"def f", "prompts=b'def f'. Turn text"),
        (["a", "b"], r"prompts\[0\]='a'. Turn text"),
        (np.array(["a", "b"]), "Turn text"),
        (tf.constant(["a", "b"]), "Turn text"),
        ([["a", "b"]], r"prompts\[0\]=\['a', 'b'\]"),
        ([[1], None], r"prompts\[1\]=None"),
        ([[1, None]], r"prompts\[0\]=\[1, None\]"),
        ([[[1, 2]]], r"prompts\[0\]=\[\[1, 2\]\]"),
        ([[1, [2]]], r"prompts\[0\]=\[1, \[2\]\]"),
        (np.ones((2, 3, 4), int), r"prompts\[0\]=array of shape \(3, 4\)"),
        (np.ones((2, 3)), FLOATS),
        (tf.ones((2, 3)), r"prompts\[0\]=array of shape \(3,\) .*float32"),
        ([[1.0, 2.0]], r"prompts\[0\]=\[1.0, 2.0\]"),
        ([[True, False]], r"prompts\[0\]=\[True, False\]"),
        ([{1, 2}], r"prompts\[0\]=\{1, 2\}"),
        ([[2**70]], r"prompts\[0\]=\[\d+\.*\d+\]"),
        ({}, r"prompts=\{\}"),
        ({"ids": [[1]]}, r"prompts=\{'ids': "),
        ({"token_ids": [[1]], "x": 1}, r"prompts=\{"),
        ({"token_ids": "ab"}, r"prompts\['token_ids'\]='ab'. Turn text"),
        ({"token_ids": [1, 2]}, r"\['token_ids'\]\[0\]=1. A single prompt"),
        (
            {"token_ids": [[1, 2]], "padding_mask": [[True]]},
            r"lengths \[2\]. Received: prompts\['padding_mask'\] with \[1\]",
        ),
        (
            {"token_ids": [[1, 2]], "padding_mask": [True, True]},
            r"prompts\['padding_mask'\]\[0\]=True",
        ),
        (
            {"token_ids": [[1, 2]], "padding_mask": [["a", "b"]]},
            r"prompts\['padding_mask'\]\[0\]=\['a', 'b'\]",
        ),
        (
            {"token_ids": [[1, 2, 3]], "padding_mask": [[1, 0, 1]]},
            r"at the ends .*prompts\['padding_mask'\]\[0\]=",
        ),
        (
            {"token_ids": [[1, 2]], "padding_mask": [[0, 0]]},
            r"that is no padding.*len\(prompts\[0\]\)=0",
        ),
        (keras.Input((3,), dtype="int32"), "outside of graphs.*prompts=<Keras"),
    ],
)
def test_refused_prompts(prompts, match):
    with pytest.raises(ValueError, match=match):
        checked(prompts)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"segment_ids": PACKED["segment_ids"][:, ::-1]}, "must not decrease"),
        ({"segment_ids": [[0, 0, 1, 2, 2, 2], [0, 1, 0, 1, 2, 2]]}, "decrease"),
        (
            {
                "padding_mask": None,
                "segment_ids": [[0] * 6, [0, 2, 1, 3, 3, 3]],
            },
            r"without a gap.* Received: segment_ids=\[1\]",
        ),
        ({"segment_ids": [[0] * 6, [0] * 5]}, r"\[6, 6\]. .* with \[6, 5\]"),
        (
            {"segment_ids": PACKED["segment_ids"] * 1.0},
            r"prompts\['segment_ids'\]\[0\]=array of shape \(6,\)",
        ),
        (
            {"padding_mask": [[1] * 6, [1, 1, 1, 0, 1, 1]]}
            | {"segment_ids": [[0] * 6, [0, 1, 1, 1, 1, 1]]},
            "at the ends",
        ),
        ({"padding_mask": [[1] * 6, [0] * 6]}, r"len\(prompts\[1\]\)=0"),
    ],
    ids=["order", "pieces", "gap", "lengths", "dtype", "mask", "empty"],
)
def test_refused_segments(changes, match):
    with pytest.raises(ValueError, match=match):
        checked({**PACKED, **changes})


def test_prompts_of_graphs():
    @tf.function
    def trace(prompts):
        return checked(prompts)

    with pytest.raises(ValueError, match="outside of graphs"):
        trace(tf.ones((2, 3), tf.int32))


@pytest.mark.parametrize("value", [None, "5", 5.0, 0, -1, True, [5]])
def test_refused_max_lengths(value):
    with pytest.raises(ValueError, match="`max_length`.*Received: max_length="):
        checked([[1]], value)


def test_refused_padding():
    for value in ("0", 0.0, True):
        with pytest.raises(ValueError, match="padding_id="):
            checked([[1]], padding_id=value)
    masked = {"token_ids": BEHIND, "padding_mask": MASKS}
    with pytest.raises(ValueError, match="given twice.*padding_id=0"):
        checked(masked, padding_id=0)
    with pytest.raises(ValueError, match=r"no padding.*len\(prompts\[1\]\)=0"):
        checked([[1, 0], [0, 0]], padding_id=0)


# --- What goes with them ---


def test_stop_tokens():
    for given in (
        [5, 2],
        (2, 5),
        {5, 2},
        np.array([5, 2]),
        tf.constant([5, 2]),
    ):
        assert stop_ids(given) == (2, 5)
    assert stop_ids(None) == stop_ids([]) == ()
    for given in (3, "auto", [1.5], ["a"], [[1]], [True]):
        with pytest.raises(ValueError, match="Received: stop_token_ids="):
            stop_ids(given)


def test_samplers_that_are_none():
    for given in (TopPSampler, None, 3, {}):
        with pytest.raises(ValueError, match="Received: sampler="):
            get_sampler(given)


def test_texts_have_no_padding():
    loop = Loop(counting(), get_sampler("greedy"))
    prompts = {"token_ids": FRONT, "padding_mask": MASKS[:, ::-1]}
    texts = [text.tolist() for text in generate(loop, prompts, 5)]
    assert texts == [[0, 3, 0, 1, 2], [5, 1, 2, 3, 4]]
    rows = [[9, 9, 1, 9], [3, 9]]
    for options in ({"seed": 1}, {}):
        found = [[], []]
        for news in stream(loop, rows, 4, padding_id=9, **options):
            for text, new in zip(found, news, strict=True):
                text.extend(new.tolist())
        assert found == [[2, 3, 4], [4, 5, 0]]
