import argparse

import ngrams
import numpy as np
import pytest
import reviews
import runs


def test_hashes_tell_ngrams_apart_and_see_nothing_later():
    rng = np.random.default_rng(0)
    ids = rng.integers(2, 6, (1, 3000))
    for size, hashes in zip(
        (2, 4), ngrams.hash_ngrams(ids, (2, 4)), strict=True
    ):
        found = {}
        for end in range(size, 3000):
            gram = tuple(ids[0, end - size + 1 : end + 1])
            found.setdefault(gram, set()).add(int(hashes[0, end]))
        values = [value for each in found.values() for value in each]
        assert len(found) == 4**size
        assert len(values) == len(set(values)) == len(found)
    changed = ids.copy()
    changed[0, 2000:] = 7
    for one, other in zip(
        ngrams.hash_ngrams(ids, (3, 6)),
        ngrams.hash_ngrams(changed, (3, 6)),
        strict=True,
    ):
        np.testing.assert_array_equal(one[:, :2000], other[:, :2000])
        assert (np.array(one) != np.array(other))[:, 2000:].all()
        assert (np.array(one) >= 0).all()


def options(tmp_path, archive, **given):
    defaults = {name: default for name, (default, _) in reviews.OPTIONS.items()}
    return argparse.Namespace(
        **{
            **defaults,
            **reviews.QUICK,
            **{name: given for name, (given, _) in runs.OPTIMIZER.items()},
            "folder": tmp_path,
            "pretraining": None,
            "export": False,
            "data": archive,
            **given,
        }
    )


@pytest.mark.parametrize("kind", ["lsh", "bag"])
def test_a_classifier_takes_over_what_was_pretrained(kind, tmp_path, archive):
    given = options(tmp_path, archive, length=64)
    model = reviews.make_classifier(given, kind, 0)
    inputs = reviews.split_batch(given, "validation")[0]
    assert model(inputs).shape == (len(inputs["token_ids"]), 2)
    if kind == "bag":
        assert len(model.pretrained) == 1
        return
    other = reviews.make_language_model(given, kind, 1)
    assert other(inputs).shape[1:] == (64, reviews.VOCABULARY)
    for part, source in zip(model.pretrained, other.pretrained, strict=True):
        part.set_weights(source.get_weights())


def test_padding_does_not_count(tmp_path, archive):
    given = options(tmp_path, archive, length=64)
    model = reviews.make_classifier(given, "lsh", 0)
    rows = reviews.batches.token_rows([b"A short one."], 64)
    longer = reviews.batches.token_rows([b"A short one."], 128)
    whole = reviews.make_classifier(
        options(tmp_path, archive, length=128), "lsh", 0
    )
    whole.set_weights(model.get_weights())
    np.testing.assert_allclose(model(rows), whole(longer), atol=1e-6)


def test_a_bag_needs_ngrams(tmp_path, archive):
    with pytest.raises(ValueError, match="ngrams=''"):
        reviews.make_classifier(options(tmp_path, archive, ngrams=""), "bag", 0)
