import math
import numbers

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.rematerialization import RefusesRematerialization
from keras_reformer.layers.tracking import track_each
from keras_reformer.ops.attention.positions import axial_positions


@keras.saving.register_keras_serializable(package="keras_reformer")
class AxialPositionEmbedding(RefusesRematerialization, keras.layers.Layer):
    """Axial position embedding: a learned table for each axis of a grid.

    Positions are laid out on a grid of `shape`. A position's embedding is the
    concatenation of its rows of all axes' tables, so that two axes take about
    `2 * sqrt(n)` rows for `n` positions.

    Called on embeddings, returns the positions to add to them.

    Args:
        shape: list of ints. Size of each axis, the last one fastest. Its
            product is the greatest length.
        dims: list of ints. Width of each axis's table. Their sum must be the
            inputs' width.
        embeddings_initializer: Initializer of the tables. Defaults to a
            normal distribution with standard deviation 0.02.
        embeddings_regularizer: Regularizer of the tables.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, sum(dims))`. Only its
            shape matters.
        start_index: int, int tensor or one int a row `(batch,)`. Position of
            the first input, for decoding step by step. Beyond the table,
            where a graph does not know it while it is traced, it is an error
            on a CPU, zeros on a GPU, and the last row of the first axis
            under XLA. Defaults to `0`.
        positions: Integer tensor of shape `(batch, length)`: all positions,
            where they do not count from `start_index`. Defaults to `None`.

    Returns:
        Float tensor of the inputs' shape.

    Raises:
        ValueError: if `shape` and `dims` differ in number, the inputs' width
            is not `sum(dims)`, or the length exceeds the table.

    Example:

    >>> layer = keras_reformer.AxialPositionEmbedding((64, 64), (8, 24))
    >>> layer(keras.ops.zeros((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451), the
    code published with it.
    """

    def __init__(
        self,
        shape,
        dims,
        embeddings_initializer=None,
        embeddings_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.shape = checks.positive_ints("shape", shape)
        self.dims = checks.positive_ints("dims", dims)
        if len(self.shape) != len(self.dims) or not self.shape:
            raise ValueError(
                "`shape` and `dims` must have one entry for each axis. "
                f"Received: shape={self.shape}, dims={self.dims}"
            )
        self.embeddings_initializer = checks.initializer(
            "embeddings_initializer",
            embeddings_initializer,
            keras.initializers.RandomNormal(0.0, 0.02),
        )
        self.embeddings_regularizer = checks.regularizer(
            "embeddings_regularizer", embeddings_regularizer
        )

    @property
    def max_length(self):
        """The greatest length: the product of `shape`."""
        return math.prod(self.shape)

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)
        if input_shape[-1] != sum(self.dims):
            raise ValueError(
                "The axes' widths must add up to the inputs' width. Expected "
                f"sum(dims)={input_shape[-1]}. Received: dims={self.dims}"
            )
        self.tables = [
            self.add_weight(
                shape=(size, dim),
                initializer=checks.fresh(self.embeddings_initializer),
                regularizer=self.embeddings_regularizer,
                name=f"axis_{axis}",
            )
            for axis, (size, dim) in enumerate(
                zip(self.shape, self.dims, strict=True)
            )
        ]
        track_each(self, "table", self.tables)

    def call(self, inputs, start_index=0, positions=None):
        checks.start_index(start_index, inputs.shape[0])
        positions = checks.integers("positions", positions, inputs.shape[:2])
        length = inputs.shape[1]
        self._check_length(length, start_index)
        tables = [keras.ops.convert_to_tensor(table) for table in self.tables]
        positions = axial_positions(
            tables, keras.ops.shape(inputs)[1], start_index, positions
        )
        return keras.ops.broadcast_to(positions, keras.ops.shape(inputs))

    def _check_length(self, length, start_index):
        if length is None or not isinstance(start_index, numbers.Integral):
            return
        if start_index + length > self.max_length:
            raise ValueError(
                f"The inputs reach beyond the position table. Expected at "
                f"most {self.max_length} positions, the product of "
                f"shape={self.shape}. Received: length={length}, "
                f"start_index={start_index}. Shorten the inputs or build the "
                "layer with a larger `shape`."
            )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "dims": self.dims,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "embeddings_regularizer": keras.regularizers.serialize(
                self.embeddings_regularizer
            ),
        }
