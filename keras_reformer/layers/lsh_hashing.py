import math

import keras
import numpy as np

from keras_reformer.layers import checks, lsh_arguments
from keras_reformer.ops.attention import hashing
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.sorting import compact, sort_rounds
from keras_reformer.ops.loops.shapes import softmax_dtype
from keras_reformer.ops.random import seed_values
from keras_reformer.ops.reversible.recompute import save_for_backward

# Of the centre that query-keys are hashed relative to: it follows training
# within some twenty steps.
_MOMENTUM = 0.95


class LSHHashing:
    """How `LSHSelfAttention` hashes: rotations, buckets, sorted orders."""

    @property
    def rotations(self):
        """Rotations to hash with at inference, or None to draw them."""
        return self._rotations

    @rotations.setter
    def rotations(self, value):
        if value is not None:
            value = np.array(value, "float32")
            self._check_rotations(value.shape)
            # Traces keep the values that they met.
            value.setflags(write=False)
        self._rotations = value

    def hash(self, inputs, mask=None):
        """Bucket ids of inputs, as inference hashes them.

        Args:
            inputs: Float tensor of shape `(batch, length, hidden_dim)`.
            mask: Boolean tensor of shape `(batch, length)` or None.

        Returns:
            int32 tensor of shape `(batch, num_heads, num_hashes, length)`.
        """
        mask = checks.mask("mask", mask, inputs.shape[:2])
        query_key, _ = self._heads(inputs, mask)
        return self._hash(query_key, mask, False, None, None)

    @property
    def weights(self):
        """Variables of the layer, without seeds, which nobody averages."""
        seed = self.rotation_seed
        return [weight for weight in super().weights if weight is not seed]

    def _build_hash_center(self):
        # Every replica sees its own share of the batch.
        self.hash_center = self.add_weight(
            shape=(self.num_heads, self.key_dim),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            aggregation="mean",
            autocast=False,
            name="hash_center",
        )

    def _follow_common_direction(self, query_key, mask):
        """Moves the centre towards what these query-keys share."""
        center = keras.ops.convert_to_tensor(self.hash_center)
        common = hashing.common_direction(query_key, mask, center)
        common = keras.ops.stop_gradient(common)
        self.hash_center.assign(center + (1 - _MOMENTUM) * (common - center))

    def _build_rotation_seed(self):
        # A variable, so that a saved model hashes as it did when it was saved.
        self.rotation_seed = self.add_weight(
            shape=(2,),
            dtype="int32",
            initializer=lsh_arguments.random_seed_initializer(
                self.seed, self._given_rotation_seed
            ),
            trainable=False,
            name="rotation_seed",
        )

    def _drawn_rotation_seed(self):
        """The rotation seed, for a config, unless it follows from `seed`."""
        if not self.built:
            given = self._given_rotation_seed
            return None if given is None else list(given)
        values = seed_values(self.rotation_seed)
        if values is None or self.seed is None:
            return values
        follows = seed_values(
            lsh_arguments.random_seed_initializer(self.seed)((2,), "int32")
        )
        return None if values == follows else values

    def _remember_sort(self, query_key, *arguments):
        length = query_key.shape[2]
        num_buckets = _num_buckets(self._factors(length))

        def decide():
            orders, buckets = self._sort(query_key, *arguments)
            return compact(orders, length), compact(buckets, num_buckets)

        return [keras.ops.cast(x, "int32") for x in save_for_backward(decide)]

    def _sort(self, query_key, mask, *arguments):
        buckets = self._hash(query_key, mask, *arguments)
        num_buckets = _num_buckets(self._factors(query_key.shape[2]))
        return sort_rounds(buckets, num_buckets), buckets

    def _hash(self, query_key, mask, training, rotation_seed, rotations):
        if mask is not None:
            mask = keras.ops.cast(mask, "bool")
        factors = self._factors(query_key.shape[2])
        if rotations is None:
            rotations = self._choose_rotations(training, rotation_seed, factors)
        else:
            self._check_rotations(rotations.shape, factors)
            rotations = rotations[:, :, : self.num_hashes]
        return hashing.hash_vectors(
            query_key,
            keras.ops.cast(rotations, softmax_dtype(query_key.dtype).name),
            factors,
            mask,
            **self._center(),
        )

    def _center(self):
        """`hash_vectors`' argument `center`, if there is one."""
        if self.hash_center is None:
            return {}
        return {"center": keras.ops.convert_to_tensor(self.hash_center)}

    def _choose_rotations(self, training, rotation_seed, factors):
        if not training and self._rotations is not None:
            self._check_rotations(self._rotations.shape, factors)
            return self._rotations[:, :, : self.num_hashes]
        return hashing.sample_rotations(
            rotation_seed
            if training
            else keras.ops.convert_to_tensor(self.rotation_seed),
            self.num_heads,
            self.key_dim,
            self.num_hashes,
            factors,
        )

    def _factors(self, length):
        if self.num_buckets is not None:
            return lsh_arguments.factors(self.num_buckets)
        lsh_arguments.check_length_known(length)
        return hashing.resolve_num_buckets(
            length, self.chunk_length, self.scope
        )

    def _importance(self, length):
        """What corrects for the odds of being shown, or None."""
        if self.duplicates != "importance":
            return None
        return Importance.of(self._factors(length), self.num_hashes)

    def _check_rotations(self, shape, factors=None):
        if factors is None and self.num_buckets is not None:
            factors = lsh_arguments.factors(self.num_buckets)
        lsh_arguments.check_rotations(
            shape, self.num_heads, self.key_dim, self.num_hashes, factors
        )


def _num_buckets(factors):
    """Of all tokens: masked ones have a bucket of their own."""
    return math.prod(factors) + 1
