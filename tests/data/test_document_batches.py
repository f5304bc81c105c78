import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.data import (
    ByteTokenizer,
    bucket_by_length,
    documents,
    pad_documents,
)

TEXTS = ["abc", "a", "abcdefghij", "", "ab"]
LABELS = [1, 0, 1, 0, 1]


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


class Letters:
    """A tokenizer of another vocabulary: 1 for each letter."""

    def tokenize(self, text):
        return [1] * len(text)


def test_documents_are_the_tokenizer_s_ids():
    dataset = documents([*TEXTS, "böok\0", b"\xff"])
    expected = [ByteTokenizer().tokenize(text) for text in TEXTS]
    expected += [ByteTokenizer().tokenize("böok\0"), [257]]
    for one, two in zip(arrays(dataset), expected, strict=True):
        np.testing.assert_array_equal(one, two)
    assert dataset.element_spec == tf.TensorSpec((None,), tf.int32)
    others = documents(TEXTS, tokenizer=Letters())
    assert [len(ids) for ids in arrays(others)] == [3, 1, 10, 0, 2]
    assert others.element_spec == tf.TensorSpec((None,), tf.int32)


def test_padded_rows_and_their_masks():
    dataset = pad_documents(documents(TEXTS, LABELS), 4, 2)
    batches = arrays(dataset)
    ids = np.concatenate([inputs["token_ids"] for inputs, _ in batches])
    masks = np.concatenate([inputs["padding_mask"] for inputs, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    lengths = [min(len(text), 4) for text in TEXTS]
    np.testing.assert_array_equal(masks, np.arange(4) < np.c_[lengths])
    for row, text in zip(ids, TEXTS, strict=True):
        expected = ByteTokenizer().tokenize(text)[:4]
        np.testing.assert_array_equal(row[: len(expected)], expected)
        assert not row[len(expected) :].any()
    np.testing.assert_array_equal(labels, LABELS)
    assert ids.dtype == np.int32
    full = pad_documents(documents(TEXTS), 4, 2, drop_remainder=True)
    spec = full.element_spec
    assert spec["token_ids"] == tf.TensorSpec((2, 4), tf.int32)
    assert len(arrays(full)) == 2


def test_random_parts_of_long_documents():
    text = bytes(range(100, 120))
    dataset = documents([text]).repeat(200)
    cropped = pad_documents(dataset, 5, 200, crop_seed=1)
    ((batch, again),) = zip(arrays(cropped), arrays(cropped), strict=True)
    rows = batch["token_ids"]
    assert set(rows[:, 0]) == set(range(102, 118))
    np.testing.assert_array_equal(rows - rows[:, :1], [range(5)] * 200)
    np.testing.assert_array_equal(rows, again["token_ids"])
    other = pad_documents(dataset, 5, 200, crop_seed=2)
    assert (arrays(other)[0]["token_ids"] != rows).any()


def test_batches_of_similar_length():
    dataset = bucket_by_length(documents(TEXTS, LABELS), (2, 5), (3, 1))
    found = [
        (*inputs["token_ids"].shape, inputs["padding_mask"].sum(1), labels)
        for inputs, labels in arrays(dataset)
    ]
    # A batch comes when it is full. The longest document is cut to 5.
    expected = [
        (1, 5, [3], [1]),
        (1, 5, [5], [1]),
        (3, 2, [1, 0, 2], [0, 0, 1]),
    ]
    for one, two in zip(found, expected, strict=True):
        assert one[:2] == two[:2]
        np.testing.assert_array_equal(one[2], two[2])
        np.testing.assert_array_equal(one[3], two[3])
    whole = bucket_by_length(documents(TEXTS), (5,), 3, drop_remainder=True)
    assert len(arrays(whole)) == 1


def test_pairs_of_sequences_share_a_boundary():
    pairs = documents(["ab", "abcdef"]).map(
        lambda ids: {"encoder_token_ids": ids, "decoder_token_ids": ids[:1]}
    )
    ((short,), (long,)) = (
        [batch] for batch in arrays(bucket_by_length(pairs, (3, 8), 1))
    )
    assert short["decoder_token_ids"].shape == (1, 3)
    assert long["decoder_padding_mask"].shape == (1, 8)
    assert long["decoder_padding_mask"].sum() == 1
    assert long["encoder_padding_mask"].sum() == 6
    (padded,) = arrays(pad_documents(pairs, 4, 2))
    np.testing.assert_array_equal(padded["encoder_padding_mask"].sum(1), [2, 4])
    with pytest.raises(ValueError, match="crop_seed=1"):
        pad_documents(pairs, 4, 2, crop_seed=1)


def test_bad_input():
    dataset = documents(TEXTS)
    with pytest.raises(ValueError, match="length=0"):
        pad_documents(dataset, 0, 1)
    with pytest.raises(ValueError, match=r"len\(texts\)=0"):
        documents([])
    with pytest.raises(ValueError, match=r"len\(labels\)=1"):
        documents(TEXTS, [1])
    for boundaries in ((), (3, 3), (0, 2), (4, 2)):
        with pytest.raises(ValueError, match="boundaries="):
            bucket_by_length(dataset, boundaries, 2)
    for sizes in ((2,), (2, 0)):
        with pytest.raises(ValueError, match="batch_sizes="):
            bucket_by_length(dataset, (2, 4), sizes)
    batches = tf.data.Dataset.from_tensors(tf.ones((2, 3), tf.int32))
    for wrong in (batches, dataset.map(lambda ids: (ids, ids))):
        with pytest.raises(ValueError, match="vectors of token ids"):
            pad_documents(wrong, 4, 2)
