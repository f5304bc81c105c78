import keras
import numpy as np

from keras_reformer.layers import checks, lsh_arguments
from keras_reformer.layers.chunked_self_attention import ChunkedSelfAttention
from keras_reformer.layers.lsh_hasher import LSHHasher
from keras_reformer.layers.moving_means import assign_mean
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.random import seed_values, split_seed
from keras_reformer.ops.replicas import common_seed


class HashedSelfAttention(ChunkedSelfAttention):
    """Settings, variables and files of self-attention that hashes.

    The layer has the settings, and the variables `rotation_seed` and
    `hash_center`; its `hasher` does the hashing.

    Args:
        num_hashes: int. Rounds of hashing.
        num_buckets: even int, list of even ints or None.
        scope: `"bucket"` or `"chunk"`.
        exact_below: int or None. Longest inputs that get exact attention.
        duplicates: how pairs that several rounds show count, or None.
        discount_duplicates: bool. The older way to write `"discount"`.
        center_hashes: bool. Whether there is a `hash_center`.
        rotations: Float array to hash with at inference, or None.
        rotation_seed: pair of ints to draw rotations from, or None.
        **kwargs: Arguments of `ChunkedSelfAttention`.
    """

    def __init__(
        self,
        *,
        num_hashes,
        num_buckets,
        scope,
        exact_below,
        duplicates,
        discount_duplicates,
        center_hashes,
        rotations,
        rotation_seed,
        **kwargs,
    ):
        checks.no_key_value_heads(kwargs.get("num_key_value_heads"))
        super().__init__(**kwargs)
        self.num_hashes = num_hashes
        self.num_buckets = lsh_arguments.num_buckets(num_buckets)
        self.scope = lsh_arguments.scope(scope, self.wrap)
        self.exact_below = exact_below
        self._duplicates = lsh_arguments.duplicates(
            duplicates, discount_duplicates
        )
        self.center_hashes = checks.boolean("center_hashes", center_hashes)
        lsh_arguments.check_center(self.center_hashes, self._duplicates)
        self.rotations = rotations
        self._given_rotation_seed = lsh_arguments.rotation_seed(rotation_seed)
        self.rotation_seed = None
        self.hash_center = None

    @property
    def hasher(self):
        """An `LSHHasher` with the current settings."""
        return LSHHasher(
            self.num_heads,
            self.key_dim,
            self.num_hashes,
            self.num_buckets,
            self.chunk_length,
            self.scope,
        )

    @property
    def num_hashes(self):
        """Number of hash rounds."""
        return self._num_hashes

    @num_hashes.setter
    def num_hashes(self, value):
        self._num_hashes = checks.positive_int("num_hashes", value)

    @property
    def exact_below(self):
        """Longest inputs that get exact attention, or None."""
        return self._exact_below

    @exact_below.setter
    def exact_below(self, value):
        if value is not None:
            value = checks.count("exact_below", value)
        self._exact_below = value

    @property
    def duplicates(self):
        """How pairs that several rounds show count."""
        return self._duplicates

    @property
    def discount_duplicates(self):
        """Whether `duplicates="discount"`."""
        return self._duplicates == "discount"

    @property
    def rotations(self):
        """Rotations to hash with at inference, or None to draw them."""
        return self._rotations

    @rotations.setter
    def rotations(self, value):
        if value is not None:
            value = np.array(value, "float32")
            self.hasher.check_rotations(value.shape)
            # Traces hold the values that were set when they were made.
            value.setflags(write=False)
        self._rotations = value

    @property
    def weights(self):
        """Variables of the layer, without the seed, which is not learned."""
        seed = self.rotation_seed
        return [weight for weight in super().weights if weight is not seed]

    def _build_hashing(self):
        """Makes the variables. A seed in a variable is saved and exported."""
        if self.center_hashes:
            # Each replica sees a part of the batch.
            self.hash_center = self.add_weight(
                shape=(self.num_heads, self.key_dim),
                dtype="float32",
                initializer="zeros",
                trainable=False,
                aggregation="mean",
                autocast=False,
                name="hash_center",
            )
        self.rotation_seed = self.add_weight(
            shape=(2,),
            dtype="int32",
            initializer=lsh_arguments.random_seed_initializer(
                self.seed, self._given_rotation_seed
            ),
            trainable=False,
            name="rotation_seed",
        )

    def _draw(self, training):
        """The call's randomness: a seed of rotations, and dropout."""
        if not training:
            return None, None
        drawn = self.seed_generator.next()
        _, dropout_seed = split_seed(drawn, 2)
        # A batch has the same rotations whoever computes its rows.
        rotation_seed, _ = split_seed(common_seed(drawn), 2)
        if not self.dropout:
            return rotation_seed, None
        options = self.dropout, dropout_seed, self.shared_dropout
        return rotation_seed, AttentionDropout(*options)

    def _hash_options(self, training=False, seed=None, rotations=None):
        """Arguments of `LSHHasher.hash` besides query-keys and mask.

        Args:
            training: bool. Whether to draw rotations from `seed`, not from
                the layer's own.
            seed: int32 tensor of shape `(2,)`, needed if `training`.
            rotations: rotations of this call, or None.
        """
        if not training:
            seed = keras.ops.convert_to_tensor(self.rotation_seed)
            rotations = self.rotations if rotations is None else rotations
        return {"seed": seed, "rotations": rotations, "center": self._center()}

    def _center(self):
        if self.hash_center is None:
            return None
        return keras.ops.convert_to_tensor(self.hash_center)

    def _update_center(self, query_key, mask):
        """One step of the moving average, after this step's hashing."""
        if self.hash_center is None:
            return
        assign_mean(
            self.hash_center,
            *self.hasher.updated_center(query_key, mask, self._center()),
        )

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.rotations is not None:
            store["rotations"] = self.rotations

    def load_own_variables(self, store):
        # Not every store has `items`.
        store = {key: np.array(store[key]) for key in store.keys()}
        # Earlier versions kept these among the weights, where they count more
        # than in a config; exact_below=None as -1.
        self.num_hashes = int(store.pop("num_hashes", self.num_hashes))
        if "exact_below" in store:
            longest = int(store.pop("exact_below"))
            self.exact_below = None if longest == -1 else longest
        self.rotations = store.pop("rotations", None)
        super().load_own_variables(store)

    def get_config(self):
        importance = self.duplicates == "importance"
        rotations = self.rotations
        return {
            **super().get_config(),
            "num_hashes": self.num_hashes,
            "num_buckets": self.num_buckets,
            "scope": self.scope,
            "exact_below": self.exact_below,
            "discount_duplicates": self.discount_duplicates,
            # None leaves it to the other: either can be replaced.
            "duplicates": "importance" if importance else None,
            "center_hashes": self.center_hashes,
            "rotations": None if rotations is None else rotations.tolist(),
            "rotation_seed": self._config_of_rotation_seed(),
        }

    def _config_of_rotation_seed(self):
        """The rotation seed, or None where it follows from `seed`."""
        if not self.built:
            given = self._given_rotation_seed
            return None if given is None else list(given)
        values = seed_values(self.rotation_seed)
        if values is None or self.seed is None:
            return values
        initializer = lsh_arguments.random_seed_initializer(self.seed)
        follows = seed_values(initializer((2,), "int32"))
        return None if values == follows else values
