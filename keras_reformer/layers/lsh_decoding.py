import math

from keras_reformer.layers import lsh_arguments
from keras_reformer.layers.decoding import check_causal
from keras_reformer.ops.decoding.attention import Step
from keras_reformer.ops.decoding.caches import (
    BucketCache,
    ChunkCache,
    attend_to_first,
    exact_at_first,
)
from keras_reformer.ops.loops.shapes import softmax_dtype


class LSHDecoding:
    """How `LSHSelfAttention` decodes.

    Rotations and number of buckets are those of the full pass at inference.
    With `scope="bucket"` a step's output is that of the full pass over any
    longer sequence; with `scope="chunk"` that of the full pass over the
    sequence so far.
    """

    def prefill(self, inputs, mask, capacity):
        """Outputs for whole prompts, and the cache to go on from.

        Args:
            inputs: Float tensor of shape `(batch, length, hidden_dim)`.
            mask: Boolean tensor of shape `(batch, length)`, True at valid
                tokens, which come first; or None.
            capacity: int or scalar tensor. Greatest number of positions.

        Returns:
            Outputs of the inputs' shape, and a `BucketCache` or `ChunkCache`;
            with a convolution of query-keys a pair, its cache first.
        """
        check_causal(self)
        if self.num_buckets is None:
            # A step would follow another length than the prompt's.
            lsh_arguments.check_length_known(None)
        query_key, tail = self._prefill_query_key(inputs, mask, capacity)
        value = self._split_heads(self.value(inputs))
        orders, buckets = self._sort(query_key, mask, False, None, None)
        attended = self._attend(
            query_key, value, orders, buckets, mask=mask, bias=self._bias()
        )
        cache = self._cache(query_key, value, orders, buckets, capacity)
        return self._merge_heads(attended), _joined(tail, cache)

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more token of each row.

        Args:
            inputs: Float tensor of shape `(batch, 1, hidden_dim)`.
            cache: what `prefill` or `decode` returned.
            positions: int32 tensor of shape `(batch,)`.
            constants: what `decode_constants` returned, or None to compute
                it here.

        Returns:
            Outputs of the inputs' shape, and the cache with the tokens.
        """
        tail, cache = (None, cache) if self.convolution is None else cache
        query_key, tail = self._decode_query_key(inputs, tail, positions)
        value = self._split_heads(self.value(inputs))
        buckets = self._hash(query_key, None, False, None, constants)[..., 0]
        step = Step(
            query_key,
            query_key,
            value,
            positions,
            shared=True,
            bias=self._bias(),
            discount=self.duplicates != "count",
            **self._importance_of_step(positions),
        )
        if self.scope == "bucket":
            attended, after = cache.attend(step, buckets)
        else:
            attended, after = cache.attend(
                step, buckets, self._window(), self.wrap
            )
        longest = self._longest_exact()
        if longest:
            exact = attend_to_first(after, step, longest)
            attended = exact_at_first(exact, attended, step, longest)
        return self._merge_heads(attended), _joined(tail, after)

    def _prefill_query_key(self, inputs, mask, capacity):
        """Query-keys of prompts, and the convolution's cache or None."""
        x, tail = self.query_key(inputs), None
        if self.convolution is not None:
            x, tail = self.convolution.prefill(x, mask, capacity)
        return self._rotated_heads(x), tail

    def _decode_query_key(self, inputs, tail, positions):
        x = self.query_key(inputs)
        if self.convolution is not None:
            x, tail = self.convolution.decode(x, tail, positions)
        return self._rotated_heads(x, positions), tail

    def _importance_of_step(self, positions):
        importance = self._importance(None)
        if importance is None:
            return {}
        # A step is the last row of a pass over the sequence so far.
        by_chance = importance.shown_by_chance(
            self._window(), positions + 1, softmax_dtype(self.compute_dtype)
        )
        return {"importance": importance, "by_chance": by_chance}

    def decode_constants(self):
        """The rotations of all steps."""
        factors = lsh_arguments.factors(self.num_buckets)
        return self._choose_rotations(False, None, factors)

    def _cache(self, query_key, value, orders, buckets, capacity):
        if self.scope == "chunk":
            return ChunkCache.of_prompt(
                query_key, value, orders, buckets, capacity
            )
        return BucketCache.of_prompt(
            query_key,
            value,
            orders,
            buckets,
            math.prod(lsh_arguments.factors(self.num_buckets)),
            self._window(),
            capacity,
        )


def _joined(tail, cache):
    """A layer's cache, with that of its convolution if there is one."""
    return cache if tail is None else (tail, cache)
