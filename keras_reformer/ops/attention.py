"""Local attention over chunks of positions, and exact attention.

Both are one softmax a query with the gradient written by hand in
`ops/blocks.py`: memory is linear in the length.
"""



import tensorflow as tf

from keras_reformer.ops import blocks
from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.groups import over_groups, plan_groups
from keras_reformer.ops.shapes import (
    Length,
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)



def merge_heads_into_batch(x: tf.Tensor) -> tf.Tensor:
    """`(b, h, t, d)` to `(g, t, d)`."""
    return tf.reshape(x, [size(x, 0) * size(x, 1), size(x, 2), size(x, 3)])


def token_positions(
    mask: tf.Tensor | None, rows: Length, num_heads: int, length: Length
) -> tf.Tensor:
    """Positions `(g, t)` of the tokens, -1 where masked."""
    positions = tf.range(length)
    if mask is None:
        return tf.broadcast_to(positions, [rows, length])
    return tf.repeat(tf.where(mask, positions, -1), num_heads, axis=0)


def split_into_chunks(x: tf.Tensor, chunk_length: int) -> tf.Tensor:
    """`(g, n * c, ...)` to `(g, n, c, ...)`."""
    rest = x.shape[2:].as_list()
    chunks = size(x, 1) // chunk_length
    return tf.reshape(x, [size(x, 0), chunks, chunk_length, *rest])


def join_chunks(x: tf.Tensor, length: Length) -> tf.Tensor:
    """`(g, n, c, ...)` to `(g, length, ...)`, the padding cut off."""
    rest = x.shape[3:].as_list()
    joined = tf.reshape(x, [size(x, 0), size(x, 1) * size(x, 2), *rest])
    return joined[:, :length]


def local_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    window: blocks.Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    dropping: blocks.Dropping | None = None,
) -> tf.Tensor:
    """Attention of each position to its own and the neighbouring chunks.

    Args:
        query: Tensor of shape `(batch, num_heads, length, key_dim)`.
        key: Tensor of the same shape, already scaled.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        window: which chunks, and whether causal.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
        wrap: bool. The first chunk's neighbour is the last.
        dropping: dropout of the attention weights.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)`, zero at
        masked positions and where nothing is visible.
    """
    batch, num_heads, length = size(query, 0), query.shape[1], size(query, 2)
    rows = batch * num_heads
    positions = token_positions(mask, rows, num_heads, length)
    chunk = window.chunk_length
    spare = ceil_div(length, chunk) * chunk - length

    def chunks(x, padding=0):
        return split_into_chunks(pad_axis(x, 1, 0, spare, padding), chunk)

    def around(x, padding=0):
        return _with_neighbours(chunks(x, padding), window, wrap, padding)

    query, key, value = map(merge_heads_into_batch, (query, key, value))
    output = _chunked_attention(
        chunks(query),
        around(key),
        around(value),
        blocks.Tokens(chunks(positions, -1)),
        blocks.Tokens(around(positions, -1)),
        window,
        dropping,
    )
    output = join_chunks(output, length)
    output = tf.where(positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _with_neighbours(
    chunks: tf.Tensor, window: blocks.Window, wrap: bool, padding: int
) -> tf.Tensor:
    """Puts the chunks around a row: its own other end, or padding."""
    if not wrap:
        return pad_axis(chunks, 1, window.before, window.after, padding)
    count = size(chunks, 1)
    index = tf.range(count + window.before + window.after) - window.before
    return tf.gather(chunks, index % count, axis=1)


def _chunked_attention(
    query, key, value, query_tokens, key_tokens, window, dropping
) -> tf.Tensor:
    """One softmax a query over a window of chunks, looped over groups."""
    dtype = softmax_dtype(query.dtype)
    halo = (window.before, window.after)
    plan = plan_groups(
        size(query, 0), size(query, 1), window.chunk_length, max(halo)
    )

    def loop(function, own, around, signature):
        return over_groups(function, own, around, plan, halo, signature)

    def step_of(q, k, v, q_tokens, k_tokens, place):
        q, k, v = (tf.cast(x, dtype) for x in (q, k, v))
        return blocks.Step(q, k, v, q_tokens, k_tokens, *ranks(place, q))

    @first_order_gradient
    def attention(query, key, value):
        around = (key, value, key_tokens)

        def forward(own, around, place):
            (q, q_tokens), (k, v, k_tokens) = own, around
            step = step_of(q, k, v, q_tokens, k_tokens, place)
            return blocks.attend(step, window, dropping), ()

        (output, log_sum_exp), _ = loop(
            forward, (query, query_tokens), around, ((dtype, dtype), ())
        )

        def gradient(d_output):
            def backward(own, around, place):
                (q, q_tokens, upstream), (k, v, k_tokens) = own, around
                step = step_of(q, k, v, q_tokens, k_tokens, place)
                d_query, d_key, d_value = blocks.attend_gradient(
                    step, upstream, window, dropping
                )
                return (d_query,), (d_key, d_value)

            upstream = blocks.upstream_of(d_output, output, log_sum_exp)
            (d_query,), d_around = loop(
                backward,
                (query, query_tokens, upstream),
                around,
                ((dtype,), (dtype, dtype)),
            )
            return blocks.cast_like(
                (d_query, *d_around), (query, key, value)
            )

        return output, gradient

    return attention(query, key, value)


def ranks(place, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Row numbers and ranks of a group's queries, for dropout's counter."""
    rows, chunks, length = (size(queries, axis) for axis in range(3))
    rank = tf.reshape(tf.range(chunks * length), [1, chunks, length])
    return place.row + tf.range(rows), place.chunk * length + rank
