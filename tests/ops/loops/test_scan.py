"""A loop whose steps' results are stacked."""

import pytest
import tensorflow as tf

from keras_reformer.ops.loops.scan import ArraySpec, scan

RESULTS = [ArraySpec([2], tf.float32), ArraySpec([], tf.int32)]


def squares(count, after):
    """Each index twice and its square, and the squares' sum."""

    def step(index, total):
        x = tf.cast(index, tf.float32)
        return tf.stack([x, -x]), index**2, total + index**2

    return scan(step, count, RESULTS, after, [tf.constant(100)])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_results_are_stacked_and_totals_pass_through(count, execution):
    run = execution(lambda after: squares(count, after))
    (pairs, numbers), (total,) = run(tf.ones(3))
    expected = tf.range(count, dtype=tf.float32)
    tf.debugging.assert_equal(pairs, tf.stack([expected, -expected], 1))
    tf.debugging.assert_equal(numbers, tf.range(count) ** 2)
    assert int(total) == 100 + sum(i * i for i in range(count))


def test_count_that_is_not_known_while_tracing():
    run = tf.function(lambda x: squares(tf.shape(x)[0], x), autograph=False)
    run = run.get_concrete_function(tf.TensorSpec([None, 3]))
    for count in (0, 4):
        (pairs, _), _ = run(tf.ones((count, 3)))
        assert pairs.shape == (count, 2)


def test_steps_see_what_the_steps_before_them_left(execution):
    def fibonacci(after):
        return scan(
            lambda _, a, b: (a, b, a + b),
            8,
            [ArraySpec([], tf.int32)],
            after,
            [tf.constant(0), tf.constant(1)],
        )

    (numbers,), last = execution(fibonacci)(tf.ones(2))
    assert numbers.numpy().tolist() == [0, 1, 1, 2, 3, 5, 8, 13]
    assert [int(x) for x in last] == [21, 34]
