"""The duplication task: sequences 0w0w, of which the second w is predicted."""

import numpy as np


def duplication_batch(rng, batch_size, length, symbols):
    """Draws a batch of sequences `0w0w`.

    `w` is a random string of symbols behind a 0. A model reads it once and
    predicts it when it comes again, over half of the sequence: only these
    positions count.

    Args:
        rng: NumPy generator.
        batch_size: int. Number of sequences.
        length: int. Tokens of a sequence: twice those of `0w`, so even, and 4
            at least.
        symbols: int. The symbols of `w` are `1 ... symbols`: a model needs
            `symbols + 1` token ids.

    Returns:
        int32 tokens, int32 labels (the next tokens) and float32 weights, each
        of shape `(batch_size, length)`: what `fit` takes as x, y and sample
        weights. A weight is 1 where a symbol of the second `w` is next and 0
        elsewhere.

    Raises:
        ValueError: if the length is odd or below 4, or there is no symbol.

    Example:

    >>> from keras_reformer.data import duplication_batch
    >>> tokens, labels, weights = duplication_batch(
    ...     np.random.default_rng(0), 1, length=8, symbols=9
    ... )
    >>> tokens[0]
    array([0, 6, 5, 3, 0, 6, 5, 3], dtype=int32)
    >>> labels[0]
    array([6, 5, 3, 0, 6, 5, 3, 0], dtype=int32)
    >>> weights[0]
    array([0., 0., 0., 0., 1., 1., 1., 0.], dtype=float32)

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451),
    section 5.
    """
    if length < 4 or length % 2:
        raise ValueError(
            "Expected an even length, of at least 4, for 0w0w. Received: "
            f"length={length}"
        )
    if symbols < 1:
        raise ValueError(
            f"Expected at least one symbol. Received: symbols={symbols}"
        )
    half = length // 2
    once = rng.integers(1, symbols + 1, (batch_size, half), dtype="int32")
    once[:, 0] = 0
    tokens = np.concatenate([once, once], axis=1)
    weights = np.zeros((batch_size, length), "float32")
    weights[:, half:-1] = 1.0
    return tokens, np.roll(tokens, -1, axis=1), weights
