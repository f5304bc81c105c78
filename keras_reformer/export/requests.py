"""Checks and padding of requests, which all endpoints share.

These are graph operations, which a server in C++ runs. An invalid request
fails with INVALID_ARGUMENT and a message; the server keeps running.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.export.endpoint import Limits, Tensors


def checked(
    request: Tensors,
    vocabulary_size: int | None,
    max_length: int | None,
    side: str = "",
) -> Tensors:
    """The same tensors, with a control dependency on checks of the request.

    Args:
        request: dict of `token_ids` and perhaps `lengths`, `labels`, or of
            `text` alone.
        vocabulary_size: int, or None to allow any token id.
        max_length: int, or None to allow any length.
        side: what stands before the names in messages.
    """
    # Sessions accept tensors of any rank and trust static shapes.
    request = {
        name: tf.raw_ops.EnsureShape(
            input=x, shape=x.shape, name=f"rank_of_{side}{name}"
        )
        for name, x in request.items()
    }
    rules = _rules_of_shape(request, max_length, side)
    with tf.control_dependencies(rules):
        request = {name: tf.identity(x) for name, x in request.items()}
        rules = _rules_of_values(request, vocabulary_size, max_length, side)
    with tf.control_dependencies(rules):
        return {name: tf.identity(x) for name, x in request.items()}


def checked_pair(request: Tensors, encoder: Limits, decoder: Limits) -> Tensors:
    """`checked`, for requests of two sequences with as many rows.

    Args:
        request: dict of `encoder_token_ids`, `decoder_token_ids` and perhaps
            both `lengths`, and of what goes with the decoder's.
        encoder: `Limits` of the encoder's tokens.
        decoder: `Limits` of the decoder's tokens.
    """
    first, second = (
        {
            name.removeprefix(side): x
            for name, x in request.items()
            if name.startswith("encoder_") == (side == "encoder_")
        }
        for side in ("encoder_", "decoder_")
    )
    first = checked(first, *encoder, "encoder_")
    second = checked(second, *decoder, "decoder_")
    rows = tf.shape(first["token_ids"])[0]
    rule = _rule(
        rows == tf.shape(second["token_ids"])[0],
        "decoder_token_ids must have a row for each one of encoder_token_ids. "
        "Received shape:",
        tf.shape(second["token_ids"]),
    )
    with tf.control_dependencies([rule]):
        both = {f"encoder_{name}": x for name, x in first.items()}
        for name in second:
            whole = name if name in request else f"decoder_{name}"
            both[whole] = second[name]
        return {name: tf.identity(both[name]) for name in request}


def padded(request: Tensors, length_buckets: Sequence[int]) -> Tensors:
    """Pads a request to the smallest length bucket that holds it.

    Args:
        request: dict of `token_ids` and perhaps `lengths`, `labels`, no
            longer than the largest bucket.
        length_buckets: increasing ints.

    Returns:
        dict of the padded tensors, and of `lengths` of the valid tokens.
    """
    batch, length = tf.unstack(tf.shape(request["token_ids"]))
    buckets = tf.constant(length_buckets, tf.int32)
    bucket = tf.reduce_min(tf.boolean_mask(buckets, buckets >= length))
    return {
        "lengths": tf.fill([batch], length),
        **{
            name: tf.pad(x, [[0, 0], [0, bucket - length]])
            if x.shape.rank == 2
            else x
            for name, x in request.items()
        },
    }


def cut(answers: Tensors, length: tf.Tensor, per_position: bool) -> Tensors:
    """Crops the padding of a length bucket from outputs per position."""
    if not per_position:
        return answers
    return {name: x[:, :length] for name, x in answers.items()}


def _rules_of_shape(request, max_length, side) -> list[tf.Operation]:
    first = next(iter(request))
    shape = tf.shape(request[first])
    rules = [
        _rule(
            tf.reduce_min(shape) > 0,
            f"{side}{first} must not be empty. Received shape:",
            shape,
        )
    ]
    if max_length is not None:
        rules.append(
            _rule(
                shape[1] <= max_length,
                f"{side}{first} must have at most {max_length} positions. "
                "Received shape:",
                shape,
            )
        )
    for name, x in request.items():
        expected = shape[: x.shape.rank]
        rules.append(
            _rule(
                tf.reduce_all(tf.shape(x) == expected),
                f"{name} must fit the shape of {side}{first}. Received shape:",
                tf.shape(x),
            )
        )
    return rules


def _rules_of_values(
    request, vocabulary_size, longest, side
) -> list[tf.Operation]:
    size, rules = vocabulary_size, []
    if size is not None:
        rules.append(_range_rule("token_ids", request, 0, size - 1, side))
    if "lengths" in request:
        length = tf.shape(request["token_ids"])[1]
        rules.append(_range_rule("lengths", request, 1, length, side))
    if size is not None and "labels" in request:
        rules.append(_range_rule("labels", request, -1, size - 1))
    if "max_length" in request:
        rules.append(_range_rule("max_length", request, 1, longest))
        rules.append(
            _rule(
                tf.reduce_all(request["lengths"] <= request["max_length"]),
                "max_length counts the prompt too and must not be less than "
                "lengths. Received lengths:",
                request["lengths"],
            )
        )
    if "temperature" in request:
        rules.append(
            _rule(
                tf.reduce_all(request["temperature"] > 0),
                "temperature must be positive. Received:",
                request["temperature"],
            )
        )
    return rules


def _range_rule(name, request, least, greatest, side="") -> tf.Operation:
    smallest = tf.reduce_min(request[name])
    largest = tf.reduce_max(request[name])
    return _rule(
        tf.logical_and(smallest >= least, largest <= greatest),
        f"{side}{name} are out of range. Expected least, expected greatest, "
        "received least, received greatest:",
        tf.stack([least, greatest, smallest, largest]),
    )


def _rule(holds, message, value) -> tf.Operation:
    return tf.debugging.Assert(holds, [message, value], summarize=8)
