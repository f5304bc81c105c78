"""What `duplicates="importance"` divides by, in NumPy."""

import numpy as np

from keras_reformer.ops.attention.importance import fit_probability


def probability(factors, num_hashes, scope, chunk_length, reach):
    """What `reference.lsh_attention` takes as `probability`.

    Args:
        factors: Tuple of ints, whose product is the number of buckets.
        num_hashes: Int.
        scope: With `"chunk"` a round also shows any key by chance.
        chunk_length: Int.
        reach: Int. Chunks that a window shows besides its own.

    Returns:
        Function of a cosine and of the number of valid tokens.
    """
    coefficients = fit_probability(factors, num_hashes)

    def probability_shown(cosine, length):
        missed = 1 - np.polyval(coefficients[::-1], max(cosine, 0))
        if scope == "chunk":
            share = (reach + 1) / -(-length // chunk_length)
            missed *= (1 - min(share, 1)) ** num_hashes
        return 1 - missed

    return probability_shown
