"""Associative recall: sequences in which keys ask for their values."""

import numpy as np


def associative_recall_batch(
    rng, batch_size, length, pairs, vocabulary, fillers="zero"
):
    """Draws a batch of multi-query associative recall.

    A sequence begins with pairs of a key and a value; behind them each key
    comes once more, at a random position among fillers: a query, to be
    answered with the key's value. Only these positions count.

    Token 0 is the filler, keys are `1 ... vocabulary // 2`, values those
    above, up to `vocabulary`: a model needs `vocabulary + 1` token ids. Keys
    of a sequence are distinct, values need not be.

    Args:
        rng: NumPy generator.
        batch_size: int. Number of sequences.
        length: int. Tokens of a sequence, at least `3 * pairs`.
        pairs: int. Pairs of a sequence, at most half of the vocabulary.
        vocabulary: int. Number of keys and values, even.
        fillers: `"zero"`, or `"random"`: values, and keys that have no value
            in this sequence. Defaults to `"zero"`.

    Returns:
        int32 tokens, int32 labels and float32 weights, each of shape
        `(batch_size, length)`: what `fit` takes as x, y and sample weights.
        A weight is 1 at a query and 0 elsewhere.

    Raises:
        ValueError: if the vocabulary is odd, pairs do not fit into it or into
            the sequence, or the fillers are unknown.

    Example:

    >>> from keras_reformer.data import associative_recall_batch
    >>> tokens, labels, weights = associative_recall_batch(
    ...     np.random.default_rng(0), 1, length=12, pairs=3, vocabulary=8
    ... )
    >>> tokens[0]
    array([3, 6, 1, 5, 2, 5, 0, 2, 0, 0, 3, 1], dtype=int32)
    >>> labels[0]
    array([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 6, 5], dtype=int32)
    >>> weights[0]
    array([0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 1., 1.], dtype=float32)

    Reference: [Arora et al., 2023](https://arxiv.org/abs/2312.04927),
    section 3.
    """
    half = vocabulary // 2
    _check_sizes(length, pairs, vocabulary, fillers)
    every_key = np.broadcast_to(np.arange(1, half + 1), (batch_size, half))
    keys = rng.permuted(every_key, axis=1)[:, :pairs]
    values = rng.integers(half + 1, vocabulary + 1, (batch_size, pairs))
    tokens = np.zeros((batch_size, length), "int32")
    if fillers == "random":
        tokens[:] = _random_fillers(rng, keys, length, vocabulary)
    tokens[:, 0 : 2 * pairs : 2] = keys
    tokens[:, 1 : 2 * pairs : 2] = values
    # Distinct random places, so that queries come in a random order.
    behind = np.arange(2 * pairs, length)
    places = rng.permuted(
        np.broadcast_to(behind, (batch_size, len(behind))), axis=1
    )[:, :pairs]
    labels = np.zeros((batch_size, length), "int32")
    weights = np.zeros((batch_size, length), "float32")
    np.put_along_axis(tokens, places, keys, axis=1)
    np.put_along_axis(labels, places, values, axis=1)
    np.put_along_axis(weights, places, 1.0, axis=1)
    return tokens, labels, weights


def _check_sizes(length, pairs, vocabulary, fillers):
    half, odd = divmod(vocabulary, 2)
    if odd:
        raise ValueError(
            "Half of the vocabulary are keys, half values; expected an even "
            f"number. Received: vocabulary={vocabulary}"
        )
    if not 1 <= pairs <= half or length < 3 * pairs:
        raise ValueError(
            "A sequence holds each pair and, behind them, each key again; "
            f"expected 1 <= pairs <= {half}, half of the vocabulary, and "
            f"length >= 3 * pairs. Received: pairs={pairs}, length={length}"
        )
    if fillers not in ("zero", "random"):
        raise ValueError(
            f"Expected 'zero' or 'random'. Received: fillers={fillers!r}"
        )


def _random_fillers(rng, keys, length, vocabulary):
    """Random tokens; keys of the sequence are replaced by random values."""
    batch_size, half = len(keys), vocabulary // 2
    tokens = rng.integers(1, vocabulary + 1, (batch_size, length))
    has_value = np.zeros((batch_size, vocabulary + 1), bool)
    np.put_along_axis(has_value, keys, True, axis=1)
    clash = np.take_along_axis(has_value, tokens, axis=1)
    others = rng.integers(half + 1, vocabulary + 1, tokens.shape)
    return np.where(clash, others, tokens)
