"""Checks of the arguments of `LSHSelfAttention`."""

import keras

from keras_reformer.layers import checks
from keras_reformer.ops.attention.hashing import num_rotation_columns

DUPLICATES = ("count", "discount", "importance")


def num_buckets(value):
    """Returns None, an even int or a list of even ints."""
    if value is None:
        return None
    listed = isinstance(value, (list, tuple))
    parts = list(value) if listed else [value]
    if not parts:
        checks.positive_int("num_buckets", value)
    for part in parts:
        checks.positive_int("num_buckets", part)
        if part % 2:
            raise ValueError(
                "`num_buckets` must be even: a rotation's coordinates and "
                "their negatives are the buckets. Expected an even integer "
                f"or a list of them. Received: num_buckets={value}. "
                f"Use {part + 1} instead of {part}."
            )
    return [int(part) for part in parts] if listed else int(value)


def factors(value):
    """The number of buckets as a tuple of factors."""
    return (value,) if isinstance(value, int) else tuple(value)


def scope(value, wrap):
    """Returns the scope, or raises a `ValueError` also where `wrap` clashes."""
    checks.choice("scope", value, ("bucket", "chunk"))
    if wrap and value == "bucket":
        raise ValueError(
            '`wrap=True` has no meaning with `scope="bucket"`, where chunk '
            'borders hide nothing. Expected `scope="chunk"`. '
            "Received: wrap=True, scope='bucket'"
        )
    return value


def duplicates(value, discount):
    """How duplicates count, from the argument and its older form."""
    discount = checks.boolean("discount_duplicates", discount)
    if value is None:
        return "discount" if discount else "count"
    checks.choice("duplicates", value, DUPLICATES)
    if discount and value != "discount":
        raise ValueError(
            "`discount_duplicates=True` is the older way to write "
            "`duplicates='discount'`, and the two disagree. Expected one of "
            "them. Received: discount_duplicates=True, "
            f"duplicates={value!r}. Leave `discount_duplicates` out."
        )
    return value


def check_center(center_hashes, duplicates):
    """Raises a `ValueError` for a center together with importance weights."""
    if center_hashes and duplicates == "importance":
        raise ValueError(
            "`duplicates='importance'` takes the probability that two tokens "
            "share a bucket from the angle between them, which "
            "`center_hashes=True` changes. Expected one of them. Received: "
            "center_hashes=True, duplicates='importance'. Use "
            "`duplicates='discount'` or `center_hashes=False`."
        )


def rotation_seed(value):
    """Returns None or a tuple of two ints, or raises a `ValueError`."""
    if value is None:
        return None
    parts = value if isinstance(value, (list, tuple)) else ()
    if len(parts) != 2:
        raise ValueError(
            "`rotation_seed` is what rotations are drawn from. Expected a "
            f"pair of integers or None. Received: rotation_seed={value!r}"
        )
    return tuple(checks.integer("rotation_seed", part) for part in parts)


def check_length_known(length):
    """Raises a `ValueError` if a length is None."""
    if length is None:
        raise ValueError(
            "`num_buckets=None` follows the length of the inputs, which is "
            "unknown here. Expected `num_buckets` as an even integer or a "
            "list of them, or inputs of known length. Received: "
            "num_buckets=None, length=None. Set `num_buckets`, for example "
            "to the longest length divided by `chunk_length`."
        )


def check_rotations(shape, num_heads, key_dim, num_hashes, factors):
    """Raises a `ValueError` for a shape that does not fit.

    Args:
        shape: shape of the rotations.
        num_heads: int. Their first axis.
        key_dim: int. Their second axis.
        num_hashes: int. The least length of their third axis.
        factors: tuple of ints, half of whose sum is their last axis, or None
            where it is not known yet.
    """
    columns = "sum(num_buckets) // 2"
    fits = len(shape) == 4 and tuple(shape[:2]) == (num_heads, key_dim)
    fits = fits and shape[2] >= num_hashes
    if fits and factors is not None:
        columns = num_rotation_columns(factors)
        fits = shape[3] == columns
    if not fits:
        raise ValueError(
            "`rotations` have a shape that does not fit the layer. Expected "
            "(num_heads, key_dim, num_hashes, sum(num_buckets) // 2) = "
            f"({num_heads}, {key_dim}, {num_hashes}, {columns}). "
            f"Received: rotations.shape={tuple(shape)}"
        )


def random_seed_initializer(seed, values=None):
    """Initializer of a seed variable of two integers.

    Args:
        seed: int that determines them. `None` means Keras's global seed.
        values: the two integers themselves, or None.
    """
    uniform = keras.initializers.RandomUniform(0.0, 2.0**22, seed=seed)

    def initialize(shape, dtype=None):
        if values is not None:
            return keras.ops.convert_to_tensor(values, dtype)
        return keras.ops.cast(uniform(shape, dtype="float32"), dtype)

    return initialize
