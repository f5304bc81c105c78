import functools
import pickle
import subprocess
import sys

import batches
import numpy as np

from keras_reformer.data import (
    ByteTokenizer,
    associative_recall_batch,
    duplication_batch,
)


def test_ids_are_those_of_the_tokenizer():
    text = b"some text"
    tokens, labels = batches.windows(np.frombuffer(text, np.uint8), [0], 8)
    np.testing.assert_array_equal(tokens[0], ByteTokenizer().tokenize(text[:8]))
    np.testing.assert_array_equal(labels[0], ByteTokenizer().tokenize(text[1:]))
    assert batches.PADDING == ByteTokenizer.padding_id
    assert batches.FIRST == ByteTokenizer.end_id
    assert batches.HIDDEN == ByteTokenizer.vocabulary_size


def test_recall_is_the_library_s():
    batch = functools.partial(batches.recall, 3, 1, (2, 40, 5), 32, "random")
    rng = batches.random(3, 1, 7)
    expected = associative_recall_batch(rng, 2, 40, 5, 32, "random")
    found = pickle.loads(pickle.dumps(batch))(7)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_duplication_is_the_library_s():
    found = batches.duplication(3, 1, 2, 22, 7, index=5)
    expected = duplication_batch(batches.random(3, 1, 5), 2, 22, 7)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_numpy_is_enough():
    code = (
        "import sys; sys.path.append(sys.argv[1]); import batches;"
        "assert not {'tensorflow', 'keras', 'jax'} & set(sys.modules)"
    )
    folder = str(batches.pathlib.Path(batches.__file__).parent)
    subprocess.run([sys.executable, "-c", code, folder], check=True)


def test_parts_of_a_batch_are_whole():
    inputs = {"token_ids": np.arange(14).reshape(7, 2)}
    given = batches.parts((inputs, np.arange(7)), 3)
    assert given.count == 2
    found, labels = given.batch(1)
    np.testing.assert_array_equal(
        found["token_ids"], [[6, 7], [8, 9], [10, 11]]
    )
    np.testing.assert_array_equal(labels, [3, 4, 5])


def test_keras_weighs_metrics_and_not_losses():
    results = [{"accuracy": 1.0, "loss": 3.0}, {"accuracy": 0.8, "loss": 1.0}]
    expected = {"accuracy": 0.95, "loss": 2.0}
    assert batches.keras_mean(results, [3, 1]) == expected


def test_means_are_weighted_and_documents_counted_whole():
    results = [{"accuracy": 1.0}, {"accuracy": 0.8}]
    assert batches.mean(results, [3, 1]) == {"accuracy": 0.95}
    assert batches.all_right(results, [5, 5]) == {
        "all_right": 1,
        "digits_right": 0.9,
    }
