"""The engine of windowed attention, for any layout of the tokens.

Local and LSH attention differ in where the tokens of a chunk lie, which is
their layout's affair (`layouts.py`). For each tile, a group of chunks,

    forward                            backward
    gather queries                     gather queries that see the tile's keys
    gather keys in their windows       gather keys
    kernel.attend                      kernel.attend_gradient
    restore by position                restore by position

and no score outlives its tile. The backward pass computes gradients of the
tile's own tokens alone: what it needs of neighbouring chunks it computes
again, and nothing is left to be scatter-added.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias, gradient_specs
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    OutputGradient,
    PairMask,
)
from keras_reformer.ops.attention.layouts import (
    Chunks,
    Layout,
    Slots,
)
from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.attention.window import (
    PairGeometry,
    Window,
    by_key,
    by_query,
    crop_chunks,
    sum_over_windows,
    visible_pairs,
    windows,
)
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.shapes import Length, size
from keras_reformer.ops.loops.tiling import Tile, map_tiles, plan_tiles


class Vectors(NamedTuple):
    """Queries, keys and values, each `(g, t, dim)`.

    Attributes:
        query: queries.
        value: values.
        key: keys; None where they are the queries at unit length.
        norms: `(g, t)`. What such queries are divided by to be keys.
    """

    query: tf.Tensor
    value: tf.Tensor
    key: tf.Tensor | None = None
    norms: tf.Tensor | None = None


class WindowedAttention(NamedTuple):
    """The two passes, for any layout.

    Attributes:
        window: which keys a query sees.
        dtype: of scores, sums and results.
        dropout: of the weights, or None.
        bias: added to the scores, or None.
        count: function of the tokens of queries and keys that divides the
            weights, or None.
        probability: function of scores, the queries' inverse lengths and
            numbers of rows that divides the weights too, or None.
        lanes: of `RowAttention`.
    """

    window: Window
    dtype: tf.DType
    dropout: AttentionDropout | None = None
    bias: PositionBias | None = None
    count: Callable[[TokenInfo, TokenInfo], tf.Tensor] | None = None
    probability: Callable[..., tf.Tensor] | None = None
    lanes: Any = None

    def forward(
        self, layout: Layout, vectors: Vectors
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Output `(g, t, value_dim)` and log-sum-exp `(g, t)`."""
        shapes, vectors = self._output_shapes(vectors), layout.prepare(vectors)
        return self._map_tiles(
            layout,
            functools.partial(self._tile_forward, layout, vectors),
            halo=(self.window.before, self.window.after),
            shapes=shapes,
            after=vectors.value,
        )

    def _tile_forward(
        self, layout: Layout, vectors: Vectors, chunks: Chunks, tile: Tile
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A tile's queries to the keys in their windows."""
        window = self.window
        slots = layout.slots(chunks, tile, window.before)
        key_slots = windows(slots, window)
        num_chunks = size(key_slots.token, 1)
        query_slots = crop_chunks(slots, window.before, num_chunks)
        queries, keys, values = self._gather_by_query(
            layout, vectors, query_slots, key_slots, tile
        )
        info = layout.token_info(chunks)
        mask = self._mask(
            by_query(window),
            crop_chunks(info, window.before, num_chunks).along(-2),
            windows(info, window).along(-1),
            rows=layout.row_numbers(tile, queries),
            query_chunks=layout.first_chunk + tile.chunk + tf.range(num_chunks),
            num_ranks=layout.num_ranks,
            inverse_norms=self._inverse_norms(
                layout, vectors, query_slots, tile, axis=-1
            ),
        )
        return self._attend(queries, keys, values, mask)

    def backward(
        self, layout: Layout, vectors: Vectors, d_output: OutputGradient
    ) -> tuple[tf.Tensor, ...]:
        """Gradients with respect to queries, keys, values and the bias.

        Shared queries and keys have one gradient. That of the bias is one for
        each of its values.
        """
        shapes = self._gradient_shapes(vectors)
        vectors, d_output = layout.prepare(vectors), layout.prepare(d_output)
        return self._map_tiles(
            layout,
            functools.partial(self._tile_backward, layout, vectors, d_output),
            halo=(self.window.reach, self.window.reach),
            shapes=shapes,
            after=d_output.output,
            sums=gradient_specs(self.bias),
        )

    def _tile_backward(
        self,
        layout: Layout,
        vectors: Vectors,
        d_output: OutputGradient,
        chunks: Chunks,
        tile: Tile,
    ) -> tuple[tf.Tensor, ...]:
        """Gradients of a tile's own tokens.

        `n` chunks of queries need `n + reach` chunks of keys, whose gradients
        of scores need `n + 2 * reach` chunks of queries.
        """
        window = self.window
        slots = layout.slots(chunks, tile, window.reach)
        query_slots = windows(slots, window)
        num_chunks = size(query_slots.token, 1)
        key_slots = crop_chunks(slots, window.after, num_chunks)
        queries, d_outputs, keys, values, norms = self._gather_by_key(
            layout, vectors, d_output, query_slots, key_slots, tile
        )
        info = layout.token_info(chunks)
        query = windows(info, window).along(-1)
        key = crop_chunks(info, window.after, num_chunks).along(-2)
        first = layout.first_chunk + tile.chunk - window.reach
        mask = self._mask(
            by_key(window),
            query,
            key,
            rows=layout.row_numbers(tile, queries),
            query_chunks=first + tf.range(num_chunks),
            num_ranks=layout.num_ranks,
            inverse_norms=self._inverse_norms(
                layout, vectors, query_slots, tile, axis=-2
            ),
        )
        d_keys, d_values, d_scores = kernel.attend_gradient(
            queries, keys, values, d_outputs, mask
        )
        d_queries = sum_over_windows(d_scores, keys, window)
        # Of the keys around the tile, other tiles compute the gradients.
        d_keys, d_values, d_scores, keys, norms, query, key = crop_chunks(
            (d_keys, d_values, d_scores, keys, norms, query, key),
            window.before,
            num_chunks - window.reach,
        )
        d_bias = self._bias_gradient(layout, query, key, d_scores, tile)
        d_vectors = self._own_gradients(
            d_queries, d_keys, d_values, keys, norms
        )
        return *d_vectors, *d_bias

    def _output_shapes(self, vectors: Vectors) -> Sequence:
        """Of what `_attend` returns, for a token."""
        return [vectors.value.shape[-1:], []]

    def _gradient_shapes(self, vectors: Vectors) -> Sequence:
        """Of what `_own_gradients` returns, for a token."""
        with_gradient = (vectors.query, vectors.key, vectors.value)
        return [x.shape[-1:] for x in with_gradient if x is not None]

    def _attend(
        self,
        queries: tf.Tensor,
        keys: tf.Tensor,
        values: tf.Tensor,
        mask: PairMask,
    ) -> tuple[tf.Tensor, ...]:
        return kernel.attend(queries, keys, values, mask)

    def _own_gradients(
        self,
        d_queries: tf.Tensor,
        d_keys: tf.Tensor,
        d_values: tf.Tensor,
        keys: tf.Tensor,
        norms: tf.Tensor | None,
    ) -> tuple[tf.Tensor, ...]:
        """Gradients with respect to what the vectors hold."""
        if norms is None:
            return d_queries, d_keys, d_values
        d_queries += kernel.unit_length_gradient(keys, norms, d_keys)
        return d_queries, d_values

    def _map_tiles(
        self,
        layout: Layout,
        step: Callable[[Chunks, Tile], tuple],
        *,
        halo: tuple[int, int],
        shapes: Sequence,
        after: tf.Tensor,
        sums: Sequence[ArraySpec] = (),
    ) -> tuple[tf.Tensor, ...]:
        """Results of all tiles by position, then sums over all tiles."""
        chunks = layout.chunks(halo)
        results = map_tiles(
            step,
            chunks,
            plan_tiles(
                layout.num_rows,
                layout.num_chunks,
                self.window.chunk_length,
                max(halo),
            ),
            halo=halo,
            results=[ArraySpec(shape, self.dtype) for shape in shapes],
            after=layout.dependency(chunks, after),
            sums=sums,
        )
        by_chunk, totals = results[: len(shapes)], results[len(shapes) :]
        return *layout.restore(by_chunk), *totals

    def _mask(
        self,
        geometry: PairGeometry,
        query: TokenInfo,
        key: TokenInfo,
        *,
        rows: tf.Tensor,
        query_chunks: tf.Tensor,
        num_ranks: Length,
        inverse_norms: tf.Tensor | None,
    ) -> PairMask:
        """All that is known of a tile's pairs besides their vectors.

        Args:
            geometry: of the pairs of one chunk and a window.
            query: tokens, along one axis of the pairs' matrices.
            key: tokens, along the other axis.
            rows: int32 `(r,)`. Numbers of the tile's rows.
            query_chunks: int32 `(n,)`. Number of the chunk that the first
                query of each matrix is in.
            num_ranks: of the layout.
            inverse_norms: one over the queries' lengths, along their axis.
        """
        bias, keep_scale, count, probability = None, None, None, None
        if self.bias is not None:
            bias = tf.cast(self.bias.of_rows(query, key, rows), self.dtype)
        if self.dropout is not None:
            first = query_chunks[:, None, None] * self.window.chunk_length
            keep_scale = self.dropout.keep_scale(
                row=rows[:, None, None, None],
                rank=(first + geometry.query) % num_ranks,
                slot=geometry.slot,
                chunk_length=self.window.chunk_length,
                dtype=self.dtype,
            )
        if self.count is not None:
            count = self.count(query, key)
        if self.probability is not None:
            probability = functools.partial(
                self.probability, inverse_norms=inverse_norms, rows=rows
            )
        visible = visible_pairs(self.window, geometry, query, key)
        return PairMask(
            visible,
            bias=bias,
            keep_scale=keep_scale,
            count=count,
            probability=probability,
        )

    def _inverse_norms(
        self,
        layout: Layout,
        vectors: Vectors,
        query_slots: Slots,
        tile: Tile,
        axis: int,
    ) -> tf.Tensor | None:
        """One over queries' lengths, along their axis of the scores, or None
        where nothing reads it."""
        if self.probability is None:
            return None
        norms: Any = vectors.norms
        (inverse,) = layout.gather((1 / norms,), query_slots, tile)
        return tf.expand_dims(inverse, axis)

    def _gather_by_query(
        self,
        layout: Layout,
        vectors: Vectors,
        query_slots: Slots,
        key_slots: Slots,
        tile: Tile,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Queries, and the keys and values in their windows."""
        # Apart from the keys, among which they lie: with another reader of
        # these the gather would be a slow loop of its own.
        (queries,) = layout.gather((vectors.query,), query_slots, tile)
        keys, values, _ = _gather_keys(layout, vectors, key_slots, tile)
        return queries, keys, values

    def _gather_by_key(
        self,
        layout: Layout,
        vectors: Vectors,
        d_output: OutputGradient,
        query_slots: Slots,
        key_slots: Slots,
        tile: Tile,
    ) -> tuple:
        """Queries and gradients of outputs that see the keys; keys, values,
        and what shared queries were divided by."""
        exists = query_slots.token >= 0
        queries, *d_outputs = layout.gather(
            (vectors.query, *d_output), query_slots, tile
        )
        d_outputs = OutputGradient(*d_outputs).where(exists)
        keys = _gather_keys(layout, vectors, key_slots, tile)
        return queries, d_outputs, *keys

    def _bias_gradient(
        self,
        layout: Layout,
        query: TokenInfo,
        key: TokenInfo,
        d_scores: tf.Tensor,
        tile: Tile,
    ) -> Sequence[tf.Tensor]:
        """A tile's share of the gradients with respect to the bias."""
        if self.bias is None:
            return []
        # Chunks that fill up the last tile must not add to the sums.
        exists = tf.range(size(d_scores, 1)) < tile.count
        d_scores = tf.where(exists[:, None, None], d_scores, 0.0)
        rows = layout.row_numbers(tile, d_scores)
        return self.bias.gradient(query, key, rows, d_scores)


def _gather_keys(
    layout: Layout, vectors: Vectors, slots: Slots, tile: Tile
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Keys and values, and what shared queries were divided by."""
    if vectors.key is not None:
        return *layout.gather((vectors.key, vectors.value), slots, tile), None
    queries, values, norms = layout.gather(
        (vectors.query, vectors.value, vectors.norms), slots, tile
    )
    # Divided, not multiplied by an inverse: a product XLA moves into each
    # reader, which leaves the gather a slow loop of its own.
    return queries / norms[..., None], values, norms
