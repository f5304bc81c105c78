import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.data import (
    documents,
    mask_spans,
    pack_documents,
    pad_documents,
    random_offsets,
    training_windows,
)

MASK = 258


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


def rows(count=40, length=500, repeats=1):
    ids = tf.random.stateless_uniform((count, length), (1, 2), 2, 258, tf.int32)
    return tf.data.Dataset.from_tensors(ids).repeat(repeats)


def runs(hidden):
    """Lengths of the runs of hidden tokens of all rows."""
    edges = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]


def test_hidden_tokens_are_asked_for_and_others_are_left():
    ((original, (tokens, labels, weights)),) = zip(
        arrays(rows()), arrays(mask_spans(rows(), MASK, seed=0)), strict=True
    )
    np.testing.assert_array_equal(labels, original)
    np.testing.assert_array_equal(tokens == MASK, weights == 1)
    np.testing.assert_array_equal(tokens[weights == 0], labels[weights == 0])
    assert weights.dtype == np.float32


@pytest.mark.parametrize("rate, length", [(0.15, 3), (0.15, 1), (0.4, 6)])
def test_rate_and_length_of_spans(rate, length):
    dataset = mask_spans(rows(100), MASK, seed=1, rate=rate, mean_length=length)
    ((_, _, weights),) = arrays(dataset)
    assert weights.mean() == pytest.approx(rate, rel=0.06)
    # Spans that touch are one run: so many spans begin, as many as positions
    # are free before one that is not.
    found = runs(weights).mean()
    assert length <= found < 1.1 * length / (1 - rate)
    if length == 1:
        assert found == pytest.approx(1 / (1 - rate), rel=0.05)


def test_padding_and_special_tokens_are_never_hidden():
    texts = documents(["abcdef", "xyz", "a"])
    dataset = pad_documents(texts, 6, 3).repeat(50)
    for inputs, labels, weights in arrays(
        mask_spans(dataset, MASK, seed=0, rate=0.5, keep_ids=(0, 99))
    ):
        hidden = inputs["token_ids"] == MASK
        assert not (hidden & ~inputs["padding_mask"]).any()
        assert not (hidden & (labels == 99)).any()
        np.testing.assert_array_equal(hidden, weights == 1)
        # One at least, where there is any: the last row is an "a" alone.
        np.testing.assert_array_equal(hidden.any(1), [True, True, False])


def packed_rows(text=b"abcd"):
    """Rows of documents without padding, of which each has 4 tokens."""
    return pack_documents(documents([text] * 400), 40).batch(40)


def test_spans_end_with_their_documents():
    """Documents' first tokens are hidden where spans begin, and only there."""
    options = {"seed": 0, "rate": 0.6, "mean_length": 30.0}
    ((inputs, _, weights),) = arrays(mask_spans(packed_rows(), MASK, **options))
    assert set(inputs) == {"token_ids", "segment_ids", "padding_mask"}
    shares = weights.reshape(-1, 4).mean(axis=0)
    # In one long row, whose spans go on, all of them are near the rate.
    assert 0 < shares[0] < 0.05 and shares[0] < shares[1] < shares[3] < 0.2


def test_masks_follow_from_the_seed_and_the_batch():
    def weights(seed):
        dataset = mask_spans(rows(repeats=2), MASK, seed=seed)
        return [weights for _, _, weights in arrays(dataset)]

    first, second = weights(0)
    assert (first != second).any()
    for one, two in zip(weights(0), (first, second), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (weights(1)[0] != first).any()


def test_bad_spans():
    for wrong in ({"rate": 0.0}, {"rate": 1.0}, {"mean_length": 0.5}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"Received: .*{name}={value}"):
            mask_spans(rows(), MASK, seed=0, **wrong)
    with pytest.raises(ValueError, match="mask_id=-1"):
        mask_spans(rows(), -1, seed=0)
    for wrong in (rows().unbatch(), documents(["a"])):
        with pytest.raises(ValueError, match="batches of integer token ids"):
            mask_spans(wrong, MASK, seed=0)
        with pytest.raises(ValueError, match="batches of integer token ids"):
            random_offsets(wrong, 1000, seed=0)


def test_rows_begin_anywhere_in_the_table():
    dataset = random_offsets(rows(400, 5), 12, seed=0)
    ((found, again),) = zip(arrays(dataset), arrays(dataset), strict=True)
    assert set(found["start_index"]) == set(range(8))
    assert found["start_index"].dtype == np.int32
    np.testing.assert_array_equal(found["start_index"], again["start_index"])
    (other,) = arrays(random_offsets(rows(400, 5), 12, seed=1))
    assert (other["start_index"] != found["start_index"]).any()
    np.testing.assert_array_equal(found["token_ids"], arrays(rows(400, 5))[0])


def test_packed_rows_have_no_offsets():
    with pytest.raises(ValueError, match="without segment_ids. Received: .*"):
        random_offsets(packed_rows(), 100, seed=0)


def test_rows_as_long_as_the_table_begin_at_its_beginning():
    data = np.arange(200, dtype=np.uint8)
    windows = training_windows(data, 8, 2, seed=0, num_steps=1)
    ((inputs, labels),) = arrays(random_offsets(windows, 8, seed=0))
    np.testing.assert_array_equal(inputs["start_index"], [0, 0])
    np.testing.assert_array_equal(inputs["token_ids"][:, 1:], labels[:, :-1])
    with pytest.raises(ValueError, match="at most max_sequence_length=7"):
        random_offsets(windows, 7, seed=0)


@pytest.fixture(scope="module")
def model():
    return keras_reformer.ReformerCausalLM(
        vocabulary_size=258,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=32,
        attention_layers=("local",),
        chunk_length=4,
    )


IDS = np.arange(2, 22).reshape(2, 10)


def test_a_model_takes_offsets_as_positions(model):
    starts = np.array([8, 0], "int32")
    found = model({"token_ids": IDS, "start_index": starts}).numpy()
    np.testing.assert_array_equal(found[1], model(IDS).numpy()[1])
    # The first row is the end of a longer one whose beginning is padding.
    longer = np.pad(IDS[:1], ((0, 0), (8, 0)))
    mask = np.arange(18)[None] >= 8
    expected = model({"token_ids": longer, "padding_mask": mask}).numpy()
    np.testing.assert_allclose(found[0], expected[0, 8:], atol=1e-5)


@pytest.mark.parametrize("wrong", [[8], [8.0, 0.0], [[8], [0]]])
def test_other_offsets_are_refused(model, wrong):
    with pytest.raises(ValueError, match="Received: .*start_index"):
        model({"token_ids": IDS, "start_index": np.array(wrong)})


def test_caches_count_from_the_first_position(model):
    x = {"token_ids": IDS, "start_index": np.array([8, 0])}
    with pytest.raises(
        ValueError, match=r"from 0. .* Received: start_index of shape \(2,\)"
    ):
        model.backbone.prefill(x, np.ones(IDS.shape, bool), 32)


def test_rows_beyond_the_last_position_are_refused(model):
    """They began anew with the table's first row."""
    model.compile("sgd", run_eagerly=True)
    starts = np.array([23, -1], "int32")
    x = {"token_ids": IDS, "start_index": starts}
    received = r"start_index=\[23, -1\], length=10, max length 32"
    calls = [model, model.fit, model.evaluate, model.predict]
    # A graph that knows the values, while it is traced.
    calls.append(tf.function(lambda x: model({**x, "start_index": starts})))
    for call in calls:
        with pytest.raises(ValueError, match=received):
            call(x)
    batches = tf.data.Dataset.from_tensors(x)
    for call in (tf.function(lambda x: model(x)), lambda _: model.fit(batches)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="<= 32"):
            call(keras.tree.map_structure(tf.constant, x))
    last = {**x, "start_index": np.array([22, 0])}
    assert np.isfinite(model(last)).all()


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_takes_offsets(model, jit_compile):
    data = np.arange(200, dtype=np.uint8)
    windows = training_windows(data, 10, 2, seed=0, num_steps=2)
    model.compile("sgd", jit_compile=jit_compile)
    (table, *_) = model.backbone.position_embedding.weights
    before = np.array(table)
    model.fit(random_offsets(windows, 32, seed=0), verbose=0)
    # Rows from 0 would leave the last rows of the first axis as they were.
    assert (np.array(table) != before).all()


@pytest.mark.slow
def test_a_masked_language_model_learns_hidden_spans():
    model = keras_reformer.ReformerMaskedLM(
        vocabulary_size=259,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        max_sequence_length=32,
        chunk_length=8,
    )
    text = documents([b"abcdefgh" * 4]).repeat(400)
    batches = mask_spans(pad_documents(text, 32, 8), MASK, seed=0)
    model.compile(keras.optimizers.Adam(1e-2), metrics=["accuracy"])
    history = model.fit(batches, verbose=0).history
    # Of hidden tokens alone: always the same letter would be right in 1 / 8.
    assert history["accuracy"][0] > 0.5
