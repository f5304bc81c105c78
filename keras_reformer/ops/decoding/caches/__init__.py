"""Decode caches, one file a kind, and the step that each makes possible.

A step attends from one new token of each row to what the row has cached, and
costs no more than the keys it attends to. Rows are at positions of their own,
so prompts of unequal lengths share a batch.

    cache          a step attends to
    ExactCache     every cached token
    ContextCache   another sequence, which no step changes
    LocalCache     the chunks of its window, in a ring buffer
    BucketCache    in each round, the most recent tokens of its bucket
    ChunkCache     in each round, the chunks around its rank in sorted order

With buckets these are the keys that a full pass over any longer sequence
shows it, with chunks those of a full pass over the sequence so far.
"""

from keras_reformer.ops.decoding.caches.bucket import BucketCache
from keras_reformer.ops.decoding.caches.chunk import ChunkCache
from keras_reformer.ops.decoding.caches.context import (
    ContextCache,
    pad_contexts,
)
from keras_reformer.ops.decoding.caches.exact import (
    ExactCache,
    attend_to_first,
    exact_at_first,
)
from keras_reformer.ops.decoding.caches.local import LocalCache
from keras_reformer.ops.decoding.caches.storage import grow, with_capacity

__all__ = [
    "BucketCache",
    "ChunkCache",
    "ContextCache",
    "ExactCache",
    "LocalCache",
    "attend_to_first",
    "exact_at_first",
    "grow",
    "pad_contexts",
    "with_capacity",
]
