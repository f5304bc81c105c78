import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.data import (
    evaluation_windows,
    split_by_position,
    training_windows,
)

LENGTH, BATCH = 5, 3


def some_bytes(count=101):
    return np.random.default_rng(0).integers(0, 256, count).astype(np.uint8)


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


def test_splits_are_contiguous_and_complete():
    data = np.arange(103)
    splits = split_by_position(data, validation=0.05, test=0.11)
    assert [len(part) for part in splits] == [103 - 5 - 11, 5, 11]
    np.testing.assert_array_equal(np.concatenate(splits), data)
    np.testing.assert_array_equal(splits.validation, data[87:92])
    assert [len(part) for part in split_by_position(data)] == [93, 5, 5]
    assert len(split_by_position(data, 0, 0).train) == 103


@pytest.mark.parametrize("parts", [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5)])
def test_bad_splits(parts):
    with pytest.raises(ValueError, match=f"test={parts[1]}"):
        split_by_position(np.arange(10), *parts)


def test_training_shapes_are_static():
    dataset = training_windows(some_bytes(), LENGTH, BATCH, seed=1, num_steps=4)
    spec = tf.TensorSpec((BATCH, LENGTH), tf.int32)
    assert dataset.element_spec == (spec, spec)
    assert dataset.cardinality() == 4
    assert len(arrays(dataset)) == 4


def test_training_without_an_end_is_infinite():
    dataset = training_windows(some_bytes(), LENGTH, BATCH, seed=1)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_training_windows_are_cut_out_of_the_data():
    data = some_bytes()
    dataset = training_windows(data, LENGTH, BATCH, seed=1, num_steps=7)
    cuts = np.lib.stride_tricks.sliding_window_view(data, LENGTH + 1)
    cuts = {tuple(cut + 2) for cut in cuts.astype(int)}
    for inputs, labels in arrays(dataset):
        np.testing.assert_array_equal(inputs[:, 1:], labels[:, :-1])
        windows = np.concatenate([inputs, labels[:, -1:]], axis=1)
        assert {tuple(window) for window in windows} <= cuts


def test_every_place_is_drawn():
    data = np.arange(9, dtype=np.uint8)
    dataset = training_windows(data, LENGTH, 200, seed=1, num_steps=1)
    ((inputs, labels),) = arrays(dataset)
    assert set(inputs[:, 0]) == {2, 3, 4, 5}
    assert labels.max() == 8 + 2


@pytest.mark.parametrize("num_steps", [None, 4])
def test_a_resumed_run_sees_the_same_batches(num_steps):
    data = some_bytes()
    whole = arrays(training_windows(data, LENGTH, BATCH, seed=1, num_steps=10))
    resumed = training_windows(
        data, LENGTH, BATCH, seed=1, first_step=6, num_steps=num_steps
    )
    for expected, got in zip(whole[6:], arrays(resumed.take(4)), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_seeds_and_steps_draw_different_batches():
    def first(seed, step=0):
        data = some_bytes(10_000)
        dataset = training_windows(
            data, LENGTH, BATCH, seed=seed, first_step=step, num_steps=1
        )
        return arrays(dataset)[0][0]

    assert not np.array_equal(first(1), first(2))
    assert not np.array_equal(first(1), first(1, step=1))
    np.testing.assert_array_equal(first(2**40), first(2**40))


def test_no_batch_comes_back():
    data = some_bytes(10_000)
    dataset = training_windows(data, LENGTH, BATCH, seed=1, num_steps=50)
    assert len({inputs.tobytes() for inputs, _ in arrays(dataset)}) == 50


def test_global_seed_changes_nothing():
    def draw(seed):
        tf.random.set_seed(seed)
        return arrays(
            training_windows(some_bytes(), LENGTH, BATCH, seed=1, num_steps=2)
        )

    np.testing.assert_array_equal(draw(1), draw(2))


def test_evaluation_predicts_every_byte_once_in_order():
    data = some_bytes(2 * 3 * LENGTH + 1)
    dataset = evaluation_windows(data, LENGTH, BATCH)
    spec = tf.TensorSpec((BATCH, LENGTH), tf.int32)
    assert dataset.element_spec == (spec, spec)
    inputs, labels = zip(*arrays(dataset), strict=True)
    np.testing.assert_array_equal(np.ravel(labels), data[1:].astype(int) + 2)
    np.testing.assert_array_equal(np.ravel(inputs), data[:-1].astype(int) + 2)


@pytest.mark.parametrize(
    "count, batches",
    [(3 * LENGTH + 1, 1), (6 * LENGTH, 1), (6 * LENGTH + 1, 2)],
)
def test_evaluation_drops_the_tail(count, batches):
    dataset = evaluation_windows(some_bytes(count), LENGTH, BATCH)
    assert dataset.cardinality() == batches


def test_evaluation_keeps_a_last_batch_on_request():
    data = some_bytes(4 * LENGTH + 1)
    dataset = evaluation_windows(data, LENGTH, BATCH, drop_remainder=False)
    assert [len(inputs) for inputs, _ in dataset] == [3, 1]
    few = evaluation_windows(data[:7], LENGTH, BATCH, drop_remainder=False)
    assert [len(inputs) for inputs, _ in few] == [1]


def test_evaluation_takes_the_first_windows():
    data = some_bytes()
    few = arrays(evaluation_windows(data, LENGTH, BATCH, max_windows=6))
    every = arrays(evaluation_windows(data, LENGTH, BATCH))
    assert (len(few), len(every)) == (2, 6)
    np.testing.assert_array_equal(few, every[:2])


def training(data, length=LENGTH, batch_size=BATCH):
    return training_windows(data, length, batch_size, seed=0)


@pytest.mark.parametrize("make", [training, evaluation_windows])
def test_bad_input(make):
    with pytest.raises(ValueError, match=r"at least 6 bytes.*len\(data\)=5"):
        make(some_bytes(5), 5, 1)
    make(some_bytes(6), 5, 1)
    with pytest.raises(ValueError, match="batch_size=0"):
        make(some_bytes(), 5, 0)
    with pytest.raises(ValueError, match="length=0"):
        make(some_bytes(), 0, 1)
    with pytest.raises(ValueError, match="data.dtype=int64"):
        make(np.arange(100), 5, 1)
    with pytest.raises(ValueError, match=r"data.shape=\(10, 10\)"):
        make(some_bytes(100).reshape(10, 10), 5, 1)


def test_evaluation_needs_a_full_batch():
    with pytest.raises(ValueError, match="gives 2 windows.*batch_size=3"):
        evaluation_windows(some_bytes(2 * LENGTH + 1), LENGTH, BATCH)
    with pytest.raises(ValueError, match="max_windows=2"):
        evaluation_windows(some_bytes(), LENGTH, BATCH, max_windows=2)


@pytest.mark.parametrize("make", [training, evaluation_windows])
def test_no_tensor_holds_the_text(make):
    # Such a tensor would lie where the default device is, as here.
    data = some_bytes(100_000)
    with tf.Graph().as_default() as graph, tf.device("GPU:0"):
        dataset = make(data, LENGTH, BATCH)
    with tf.device("GPU:0"):
        inputs, labels = next(iter(make(data, LENGTH, BATCH)))
    assert "CPU" in inputs.device
    assert "CPU" in labels.device
    functions = graph.as_graph_def().library.function
    assert dataset is not None
    assert functions
    assert graph.as_graph_def().ByteSize() < len(data)


@pytest.mark.parametrize("make", [training, evaluation_windows])
def test_the_text_is_freed_with_its_dataset(make):
    data = some_bytes()
    next(iter(make(data, LENGTH, BATCH)))
    reference = weakref.ref(data)
    del data
    gc.collect()
    assert reference() is None


def test_tokens_without_copies():
    # A read-only view, as `split_by_position` gives it of a corpus.
    data = np.frombuffer(bytes(range(200)), np.uint8)[7:]
    inputs, labels = next(iter(evaluation_windows(data, LENGTH, BATCH)))
    np.testing.assert_array_equal(np.ravel(inputs), np.arange(7, 22) + 2)
    np.testing.assert_array_equal(np.ravel(labels), np.arange(8, 23) + 2)


def test_a_dataset_keeps_its_text():
    def make():
        return training_windows(some_bytes(), LENGTH, BATCH, seed=1)

    expected = arrays(make().take(4))
    iterators = [
        iter(make()),
        iter(tf.data.Dataset.zip((make(),)).map(lambda pair: pair).prefetch(1)),
        iter(tf.data.Dataset.range(1).interleave(lambda _: make())),
    ]
    gc.collect()
    for iterator in iterators:
        for batch in expected:
            np.testing.assert_array_equal(next(iterator), batch)


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_token_ids_stay_as_they_are(dtype):
    ids = np.arange(300, 300 + 2 * 3 * LENGTH + 1, dtype=dtype)
    found = arrays(evaluation_windows(ids, LENGTH, BATCH))
    labels = np.ravel([labels for _, labels in found])
    np.testing.assert_array_equal(labels, ids[1:])
    assert labels.dtype == np.int32
    drawn = training_windows(ids, LENGTH, BATCH, seed=0, num_steps=1)
    ((inputs, labels),) = arrays(drawn)
    np.testing.assert_array_equal(labels, inputs + 1)
    assert set(inputs.ravel()) <= set(ids)
