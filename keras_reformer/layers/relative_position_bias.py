import math

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.position_bias import PositionBiasLayer


@keras.saving.register_keras_serializable(package="keras_reformer")
class RelativePositionBias(PositionBiasLayer):
    """T5's relative position bias, as a `position_bias`.

    Each head learns a bias for each bucket of distances. Small distances have
    a bucket each, larger ones share buckets whose width grows geometrically
    up to `max_distance`, and all beyond share the last.

    Args:
        num_heads: int. Number of attention heads.
        num_buckets: int. Buckets of distances. Defaults to `32`.
        max_distance: int. Where the last bucket begins. Defaults to `128`.
        causal: bool. Whether all buckets are for keys before the query; else
            half of them are for keys after it. Defaults to `False`.
        embeddings_initializer: Initializer of the biases. Defaults to a
            normal distribution with standard deviation 0.02.
        embeddings_regularizer: Regularizer of the biases.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        query_positions: int32 tensor.
        key_positions: int32 tensor.
        heads: int32 tensor; the three broadcast against each other.

    Returns:
        Float tensor of the broadcast shape, float32 at least.

    Raises:
        ValueError: if there are too few buckets, or `max_distance` does not
            exceed the distances that have a bucket each.

    Example:

    >>> layer = keras_reformer.LSHSelfAttention(
    ...     num_heads=2, key_dim=16, causal=True,
    ...     position_bias=keras_reformer.RelativePositionBias(2, causal=True),
    ... )
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Raffel et al., 2020](https://arxiv.org/abs/1910.10683),
    section 2.1, and the code published with it.
    """

    def __init__(
        self,
        num_heads,
        num_buckets=32,
        max_distance=128,
        causal=False,
        embeddings_initializer=None,
        embeddings_regularizer=None,
        **kwargs,
    ):
        super().__init__(num_heads, **kwargs)
        self.num_buckets = checks.positive_int("num_buckets", num_buckets)
        self.max_distance = checks.positive_int("max_distance", max_distance)
        self.causal = checks.boolean("causal", causal)
        self.embeddings_initializer = checks.initializer(
            "embeddings_initializer",
            embeddings_initializer,
            keras.initializers.RandomNormal(0.0, 0.02),
        )
        self.embeddings_regularizer = checks.regularizer(
            "embeddings_regularizer", embeddings_regularizer
        )
        self._starts = self._class_starts()

    def _class_starts(self):
        """The least distance of each bucket on one side."""
        classes = self.num_buckets // (1 if self.causal else 2)
        near = classes // 2
        if near < 1 or (not self.causal and self.num_buckets % 2):
            raise ValueError(
                "Each side needs a bucket for near and one for far distances. "
                "Expected `num_buckets` of at least 2, or an even number of "
                "at least 4 where causal=False. Received: num_buckets="
                f"{self.num_buckets}, causal={self.causal}"
            )
        if self.max_distance <= near:
            raise ValueError(
                f"Distances up to {near} have a bucket each. Expected "
                f"`max_distance` above that. Received: max_distance="
                f"{self.max_distance}, num_buckets={self.num_buckets}"
            )
        step = math.log(self.max_distance / near) / (classes - near)
        far = [
            # Just below a whole number means that number.
            math.ceil(near * math.exp(step * i) - 1e-9)
            for i in range(classes - near)
        ]
        return [*range(near), *far]

    def build(
        self, query_positions_shape, key_positions_shape=None, heads_shape=None
    ):
        self.embeddings = self.add_weight(
            shape=(self.num_heads, self.num_buckets),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            name="embeddings",
        )

    def call(self, query_positions, key_positions, heads):
        table = keras.ops.convert_to_tensor(self.embeddings)
        rows = keras.ops.take(table, heads, axis=0)
        back = query_positions - key_positions
        count = len(self._starts)
        before = self._of_distance(rows[..., :count], back)
        if self.causal:
            return before
        after = self._of_distance(rows[..., count:], -back)
        return keras.ops.where(back >= 0, before, after)

    def _of_distance(self, rows, distance):
        """The bias of a distance's bucket.

        A sum of differences of neighbouring buckets: the gradient of a gather
        would be a scatter-add over all pairs. Negative distances are in the
        first bucket.
        """
        bias = rows[..., 0]
        for index, start in enumerate(self._starts[1:], start=1):
            step = rows[..., index] - rows[..., index - 1]
            bias += keras.ops.where(distance >= start, step, 0.0)
        return bias

    def get_config(self):
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "causal": self.causal,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "embeddings_regularizer": keras.regularizers.serialize(
                self.embeddings_regularizer
            ),
        }
