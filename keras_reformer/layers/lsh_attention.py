"""LSH attention in heads: of a whole sequence, and step by step."""

import dataclasses
import math

import keras

from keras_reformer.layers.lsh_hasher import LSHHasher
from keras_reformer.ops.attention.duplicates import attention_of_rows
from keras_reformer.ops.attention.exact import exact_shared_attention
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.decoding.attention import Step
from keras_reformer.ops.decoding.caches import (
    BucketCache,
    ChunkCache,
    attend_to_first,
    exact_at_first,
)
from keras_reformer.ops.loops.shapes import choose_by_length, softmax_dtype


@dataclasses.dataclass(frozen=True)
class LSHAttention:
    """Attention of hashed query-keys, without variables.

    Args:
        hasher: `LSHHasher` of the query-keys.
        window: `Window` of the sorted order.
        wrap: bool. As in `LSHSelfAttention`.
        duplicates: `"count"`, `"discount"` or `"importance"`.
        longest_exact: int. Sequences of at most this length get exact
            attention.
    """

    hasher: LSHHasher
    window: Window
    wrap: bool
    duplicates: str
    longest_exact: int

    def attend(
        self, query_key, value, orders, buckets, segments=None, **options
    ):
        """Attention of all tokens of a sequence.

        Args:
            query_key: Float tensor of shape `(batch, num_heads, length,
                key_dim)`.
            value: Float tensor of shape `(batch, num_heads, length,
                value_dim)`.
            orders: what `LSHHasher.sort` returned for `query_key`.
            buckets: the same.
            segments: `Segments` that tokens were sorted by, or None.
            **options: `mask`, `dropout` and `bias` of `ops`.

        Returns:
            Float tensor of the value's shape.
        """
        if 0 in value.shape:
            return value
        if segments is not None:
            self._check_lengths_do_not_matter()
            buckets = self.hasher.apart(buckets, segments)
            options["segments"] = segments
        return choose_by_length(
            keras.ops.shape(query_key)[2],
            self.longest_exact,
            lambda: exact_shared_attention(
                query_key, value, causal=self.window.causal, **options
            ),
            lambda: lsh_attention(
                query_key,
                value,
                orders,
                buckets,
                self.window,
                **self._rules(query_key.shape[2]),
                **options,
            ),
        )

    def _check_lengths_do_not_matter(self):
        if self.duplicates == "importance" and not self.window.same_bucket:
            raise ValueError(
                "With windows of chunks, importance weights depend on a "
                "document's length, and rows of packed documents have many. "
                'Expected scope="bucket", duplicates="count" or "discount", '
                "or segment_ids=None. Received: scope='chunk', "
                "duplicates='importance' and segment_ids"
            )

    def weights_of_rows(self, query_key, orders, buckets, rows, **options):
        """Attention weights of some queries over all positions.

        Args:
            query_key: as for `attend`, and so are `orders` and `buckets`.
            rows: int32 tensor of shape `(n,)`. Positions of the queries.
            **options: `mask` and `bias` of `ops`.

        Returns:
            Float tensor of shape `(batch, num_heads, n, length)`.
        """
        rules = self._rules(query_key.shape[2])
        return attention_of_rows(
            query_key, orders, buckets, rows, self.window, **rules, **options
        )

    def make_cache(self, query_key, value, orders, buckets, capacity):
        """A cache of prompts, to go on from with `attend_to_cache`.

        Args:
            query_key: as for `attend`, and so are the next three.
            capacity: int or scalar tensor. Greatest number of positions.

        Returns:
            A `BucketCache` or a `ChunkCache`, depending on the scope.
        """
        prompt = query_key, value, orders, buckets
        if not self.window.same_bucket:
            return ChunkCache.of_prompt(*prompt, capacity)
        num_buckets = math.prod(self.hasher.factors(None))
        return BucketCache.of_prompt(
            *prompt, num_buckets, self.window, capacity
        )

    def attend_to_cache(
        self, query_key, value, buckets, cache, positions, bias
    ):
        """Attention of one more token of each row.

        With `scope="bucket"` it is that of `attend` to any longer sequence,
        with `scope="chunk"` that of `attend` to the sequence so far.

        Args:
            query_key: Float tensor of shape `(batch, num_heads, 1, key_dim)`.
            value: Float tensor of shape `(batch, num_heads, 1, value_dim)`.
            buckets: int32 tensor of shape `(batch, num_heads, num_hashes)`.
            cache: what `make_cache` or `attend_to_cache` returned.
            positions: int32 tensor of shape `(batch,)`.
            bias: `PositionBias` or None.

        Returns:
            Float tensor of the value's shape, and the cache with the token.
        """
        step = Step(
            query_key,
            query_key,
            value,
            positions,
            shared=True,
            bias=bias,
            discount=self.duplicates != "count",
            num_global=self.window.num_global,
            **self._importance_of_step(positions, query_key.dtype),
        )
        if self.window.same_bucket:
            attended, cache = cache.attend(step, buckets)
        else:
            attended, cache = cache.attend(
                step, buckets, self.window, self.wrap
            )
        if self.longest_exact:
            exact = attend_to_first(cache, step, self.longest_exact)
            attended = exact_at_first(exact, attended, step, self.longest_exact)
        return attended, cache

    def _rules(self, length):
        return {
            "wrap": self.wrap,
            "discount_duplicates": self.duplicates == "discount",
            "importance": self._importance(length),
        }

    def _importance(self, length):
        if self.duplicates != "importance":
            return None
        return self.hasher.importance(length)

    def _importance_of_step(self, positions, dtype):
        importance = self._importance(None)
        if importance is None:
            return {}
        # A step is the last row of a pass over the sequence so far.
        by_chance = importance.shown_by_chance(
            self.window, positions + 1, softmax_dtype(dtype)
        )
        return {"importance": importance, "by_chance": by_chance}
