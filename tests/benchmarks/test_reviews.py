import argparse

import batches
import numpy as np
import reviews


def test_splits_share_nothing_and_are_fixed_by_name(archive):
    found = {split: reviews.read(archive, split) for split in reviews.SPLITS}
    texts = [text for split in found.values() for text in split.texts]
    assert len(texts) == len(set(texts)) == 200
    sizes = [len(found[split].texts) for split in reviews.SPLITS]
    assert 140 < sizes[0] < 180 and min(sizes) > 8
    for split in found.values():
        for text, label in zip(split.texts, split.labels, strict=True):
            assert text.startswith(b"pos" if label else b"neg")


def test_rows_have_a_first_token_and_a_mask():
    rows = batches.token_rows([b"abc", b"abcdefgh"], 6)
    a = ord("a") + 2
    expected = [[1, a, a + 1, a + 2, 0, 0], [1, a, a + 1, a + 2, a + 3, a + 4]]
    np.testing.assert_array_equal(rows["token_ids"], expected)
    np.testing.assert_array_equal(rows["padding_mask"], np.array(expected) != 0)


def test_random_parts_of_long_texts():
    rng = np.random.default_rng(0)
    text = bytes(range(100, 120))
    starts = {
        int(batches.token_rows([text], 6, rng)["token_ids"][0, 1])
        for _ in range(200)
    }
    assert starts == set(range(102, 118))


def test_hidden_bytes_are_asked_for():
    rng = np.random.default_rng(0)
    texts = [b"abcdefgh" * 30, b"xyz"]
    inputs, labels, weights = batches.hide_bytes(
        rng, texts, 200, "masked", 0.25
    )
    hidden = inputs["token_ids"] == batches.HIDDEN
    np.testing.assert_array_equal(hidden, weights == 1)
    plain = batches.token_rows(texts[1:], 200)["token_ids"][0]
    np.testing.assert_array_equal(labels[1], plain)
    shown = inputs["token_ids"]
    np.testing.assert_array_equal(shown[~hidden], labels[~hidden])
    assert 0.15 < hidden[0].mean() < 0.35
    assert 1 <= hidden[1].sum() <= 3
    assert not hidden[:, 0].any()


def test_next_bytes_are_asked_for():
    rng = np.random.default_rng(0)
    inputs, labels, weights = batches.hide_bytes(
        rng, [b"abc", b"abcdefgh"], 6, "causal", 0.25
    )
    tokens = inputs["token_ids"]
    np.testing.assert_array_equal(labels[:, :-1], tokens[:, 1:])
    np.testing.assert_array_equal(
        weights, [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    )


def test_an_epoch_meets_each_review_once(archive):
    data = reviews.read(archive, "train")
    options = argparse.Namespace(
        batch_size=7, steps=1, length=300, crop=False, data=archive
    )
    stage = reviews.labelled_stage(options, data, 0)
    steps = len(data.labels) // 7
    rows = np.concatenate(
        [stage.batch(step)[0]["token_ids"] for step in range(steps)]
    )
    assert len(np.unique(rows, axis=0)) == 7 * steps
    one, two = stage.batch(0), stage.batch(steps)
    assert (one[0]["token_ids"] != two[0]["token_ids"]).any()


def test_rows_of_weight_zero_fill_the_last_batch():
    inputs = {"token_ids": np.arange(10).reshape(5, 2)}
    found, labels, weights = reviews.whole_batches((inputs, np.arange(5)), 4)
    assert found["token_ids"].shape == (8, 2)
    np.testing.assert_array_equal(labels, [0, 1, 2, 3, 4, 0, 1, 2])
    np.testing.assert_array_equal(weights, [1, 1, 1, 1, 1, 0, 0, 0])
