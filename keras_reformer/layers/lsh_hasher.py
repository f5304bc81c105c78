"""Locality-sensitive hashing of query-keys, with its settings."""

import dataclasses
import math

import keras

from keras_reformer.layers import checks, lsh_arguments
from keras_reformer.ops.attention import hashing
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.sorting import compact, sort_rounds
from keras_reformer.ops.loops.shapes import softmax_dtype
from keras_reformer.ops.reversible.recompute import save_for_backward

# Of the moving average that is the center of hashing: it follows training
# within some twenty steps.
_MOMENTUM = 0.95


@dataclasses.dataclass(frozen=True)
class LSHHasher:
    """Hashes query-keys into buckets and sorts tokens by bucket.

    A hasher holds settings and no variables: what is drawn or learned, the
    seed of rotations and the center, are arguments of its methods.

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's query-keys.
        num_hashes: int. Rounds of hashing.
        num_buckets: even int, or list of even ints whose product is the
            number of buckets. `None` follows the length.
        chunk_length: int. Tokens in a chunk of the sorted order.
        scope: `"bucket"` or `"chunk"`, on which the number of buckets
            depends where it follows the length.

    Raises:
        ValueError: if a count is not positive, or `num_buckets` is odd.
    """

    num_heads: int
    key_dim: int
    num_hashes: int
    num_buckets: int | list[int] | None
    chunk_length: int
    scope: str

    def __post_init__(self):
        checks.positive_int("num_hashes", self.num_hashes)
        lsh_arguments.num_buckets(self.num_buckets)

    def factors(self, length):
        """The number of buckets for a length, as a tuple of even factors.

        Args:
            length: int or None. Needed only if `num_buckets` is None.
        """
        if self.num_buckets is not None:
            return lsh_arguments.factors(self.num_buckets)
        lsh_arguments.check_length_known(length)
        return hashing.resolve_num_buckets(
            length, self.chunk_length, self.scope
        )

    def hash(self, query_key, mask=None, *, seed, rotations=None, center=None):
        """Bucket ids of query-keys, one for every round.

        Args:
            query_key: Float tensor of shape `(batch, num_heads, length,
                key_dim)`.
            mask: Boolean tensor of shape `(batch, length)` or None. Masked
                tokens get a bucket of their own, which sorts last.
            seed: int32 tensor of shape `(2,)` to draw rotations from.
            rotations: Float tensor of shape `(num_heads, key_dim, rounds,
                sum(num_buckets) // 2)` to use instead, `rounds` at least
                `num_hashes`.
            center: Float tensor of shape `(num_heads, key_dim)`, subtracted
                from directions before they are hashed, or None.

        Returns:
            int32 tensor of shape `(batch, num_heads, num_hashes, length)`.
        """
        if mask is not None:
            mask = keras.ops.cast(mask, "bool")
        factors = self.factors(query_key.shape[2])
        rotations = self.rotations(factors, seed, rotations)
        dtype = softmax_dtype(query_key.dtype).name
        rotations = keras.ops.cast(rotations, dtype)
        return hashing.hash_vectors(query_key, rotations, factors, mask, center)

    def sort(self, query_key, mask=None, segments=None, **options):
        """Sorted order and bucket ids of every round.

        Args:
            query_key: as for `hash`.
            mask: as for `hash`.
            segments: `Segments`, each sorted for itself, or None.
            **options: `seed`, `rotations` and `center` of `hash`.

        Returns:
            Two int32 tensors of shape `(batch, num_heads, num_hashes,
            length)`: the position at each rank, and the bucket of each
            position.
        """
        buckets = self.hash(query_key, mask, **options)
        num_ids = self._num_ids(query_key.shape[2])
        return sort_rounds(buckets, num_ids, segments), buckets

    def sort_once(self, query_key, mask=None, segments=None, **options):
        """`sort`, whose result a reversible stack's backward pass reuses.

        There query-keys are recomputed, and a rounding error could move one
        into another bucket.
        """

        def decide():
            length = query_key.shape[2]
            orders, buckets = self.sort(query_key, mask, segments, **options)
            orders = compact(orders, length)
            return orders, compact(buckets, self._num_ids(length))

        orders, buckets = save_for_backward(decide)
        return keras.ops.cast(orders, "int32"), keras.ops.cast(buckets, "int32")

    def apart(self, buckets, segments):
        """Buckets under other numbers in each document of a row.

        Args:
            buckets: what `hash` returned.
            segments: `Segments`.
        """
        num_ids = self._num_ids(buckets.shape[3])
        return buckets + num_ids * segments.number[:, None, None]

    def rotations(self, factors, seed, rotations=None):
        """The rotations of all rounds: those given, or else drawn.

        Args:
            factors: tuple of ints, as `factors` returns it.
            seed: as for `hash`.
            rotations: as for `hash`.

        Returns:
            Float tensor of shape `(num_heads, key_dim, num_hashes,
            sum(factors) // 2)`.
        """
        if rotations is None:
            return hashing.sample_rotations(
                seed, self.num_heads, self.key_dim, self.num_hashes, factors
            )
        self.check_rotations(rotations.shape, factors)
        return rotations[:, :, : self.num_hashes]

    def check_rotations(self, shape, factors=None):
        """Raises a `ValueError` if rotations have a shape that does not fit.

        Args:
            shape: shape of the rotations.
            factors: tuple of ints, or None where the length is not known yet.
        """
        if factors is None and self.num_buckets is not None:
            factors = lsh_arguments.factors(self.num_buckets)
        lsh_arguments.check_rotations(
            shape, self.num_heads, self.key_dim, self.num_hashes, factors
        )

    def updated_center(self, query_key, mask, center):
        """The center after a training step: a moving average.

        Args:
            query_key: as for `hash`.
            mask: as for `hash`.
            center: Float tensor of shape `(num_heads, key_dim)`.

        Returns:
            Float tensor of the center's shape, and one of shape `(num_heads,
            1)`, its weight in the mean over parts of a batch; both without
            gradient.
        """
        common, weight = hashing.common_direction(query_key, mask, center)
        common = keras.ops.stop_gradient(common)
        center += (1 - _MOMENTUM) * (common - center)
        return center, keras.ops.stop_gradient(weight)

    def importance(self, length):
        """Importance weights: how likely rounds are to show a pair.

        Args:
            length: as for `factors`.
        """
        return Importance.of(self.factors(length), self.num_hashes)

    def _num_ids(self, length):
        """Buckets of all tokens: masked ones have one of their own."""
        return math.prod(self.factors(length)) + 1
