import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops import tracing
from keras_reformer.ops.chunking import chunk_length_for, map_positions
from keras_reformer.ops.loops.scan import ArraySpec

BATCH, DIM, OUTPUT_DIM, LONGEST = 2, 3, 5, 17
CHUNKS = [1, 4, 5, 16, 17, 18]


def make_case(length, dtype="float64"):
    rng = np.random.default_rng(length)
    shapes = [(BATCH, length, DIM), (DIM, OUTPUT_DIM), (OUTPUT_DIM,)]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def function(chunk, first, weights):
    """Depends on the position, so that a wrong `first` is seen."""
    kernel, bias = weights
    steps = tf.shape(chunk)[1]
    position = tf.cast(tf.range(steps) + first, chunk.dtype)
    return tf.tanh(chunk @ kernel + bias) * (1 + position[:, None])


def plainly(inputs, kernel, bias):
    return function(inputs, 0, [kernel, bias])


def in_chunks(chunk_length):
    def mapped(inputs, *weights):
        return map_positions(
            function,
            inputs,
            weights,
            chunk_length,
            ArraySpec([OUTPUT_DIM], inputs.dtype),
        )

    return mapped


def with_gradients(mapped, upstream):
    """A function that also returns the gradients of all its arguments."""

    def run(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = mapped(*arguments)
            loss = tf.reduce_sum(outputs * upstream)
        return outputs, *tape.gradient(loss, arguments)

    return run


def as_tensors(case):
    return [tf.constant(array) for array in case]


def assert_close(ones, others, atol=1e-12):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("chunk_length", CHUNKS)
def test_values_and_gradients(chunk_length, execution):
    case = as_tensors(make_case(LONGEST))
    rng = np.random.default_rng(0)
    upstream = tf.constant(rng.normal(size=(BATCH, LONGEST, OUTPUT_DIM)))
    expected = with_gradients(plainly, upstream)(*case)
    run = with_gradients(in_chunks(chunk_length), upstream)
    assert_close(execution(run)(*case), expected)


@pytest.mark.parametrize("jit", [False, True])
def test_length_known_while_running_only(jit):
    run = tf.function(
        with_gradients(in_chunks(4), tf.constant(1.0, tf.float64)),
        jit_compile=jit,
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, None, DIM), tf.float64),
            tf.TensorSpec((DIM, OUTPUT_DIM), tf.float64),
            tf.TensorSpec((OUTPUT_DIM,), tf.float64),
        ],
    )
    plain = with_gradients(plainly, tf.constant(1.0, tf.float64))
    for length in (1, 3, 4, 5, 8, 17):
        case = as_tensors(make_case(length))
        assert_close(run(*case), plain(*case))


def test_finite_differences():
    inputs, *weights = as_tensors(make_case(7))

    def loss(*arguments):
        return tf.reduce_sum(in_chunks(3)(*arguments) ** 2)

    expected, numeric = tf.test.compute_gradient(
        loss, [inputs, *weights], delta=2**-14
    )
    for one, other in zip(expected, numeric, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_weights_that_get_no_gradient():
    case = as_tensors(make_case(9))

    def half(chunk, first, weights):
        return chunk @ weights[0]

    def mapped(inputs, *weights):
        return map_positions(
            half, inputs, weights, 4, ArraySpec([OUTPUT_DIM], inputs.dtype)
        )

    run = with_gradients(mapped, tf.constant(1.0, tf.float64))
    *_, d_bias = run(*case)
    np.testing.assert_array_equal(d_bias, np.zeros(OUTPUT_DIM))


def test_other_output_dtype():
    inputs, *weights = as_tensors(make_case(9, "float32"))

    def wide(chunk, first, weights):
        return tf.cast(plainly(chunk, *weights), tf.float64)

    def mapped(inputs, *weights):
        return map_positions(
            wide, inputs, weights, 4, ArraySpec([OUTPUT_DIM], tf.float64)
        )

    run = with_gradients(mapped, tf.constant(1.0, tf.float64))
    outputs, d_inputs, *d_weights = run(inputs, *weights)
    assert outputs.dtype == tf.float64
    assert {d.dtype for d in (d_inputs, *d_weights)} == {tf.float32}


def test_function_sees_one_chunk_at_a_time():
    lengths = []

    def seen(chunk, first, weights):
        lengths.append(chunk.shape[1])
        return chunk

    map_positions(seen, tf.zeros((BATCH, LONGEST, DIM)), [], 5)
    assert set(lengths) == {5}


def test_second_order_gradients_are_refused():
    inputs, *weights = as_tensors(make_case(9))
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            loss = tf.reduce_sum(in_chunks(4)(inputs, *weights))
        gradient = inner.gradient(loss, inputs)
        with pytest.raises(LookupError):
            outer.gradient(gradient, inputs)


def test_chunks_are_larger_on_a_gpu():
    inputs = tf.zeros([1, 64, 1])
    assert chunk_length_for(inputs, width=4, elements=8) == 2
    with tracing.lowering_for("gpu"):
        assert chunk_length_for(inputs, width=4, elements=8) == 32
