"""Slow, obvious NumPy versions of the Reformer's equations, in float64.

Written to be believed, not to be fast: plain Python loops over batch, head,
hash round, query and key, one short function per rule. Tests compare the
library with these. After Kitaev et al., 2020 (https://arxiv.org/abs/2001.04451)
and the decisions in docs/decisions.md.
"""

import functools
import math

import numpy as np

NORM_EPSILON = 1e-6


# --- Hashing ---------------------------------------------------------------


def hash_vectors(vectors, rotations, factors, mask=None):
    """Bucket ids of `vectors` under random `rotations`.

    Args:
        vectors: `(batch, heads, length, dim)`.
        rotations: `(heads, dim, num_hashes, sum(factors) // 2)`: one block of
            `factor // 2` columns per factor, in the order of `factors`.
        factors: Even ints whose product is the number of buckets. The first
            factor is the least significant digit of the bucket id.
        mask: Bool `(batch, length)`. Masked positions get one bucket of their
            own, `prod(factors)`.

    Returns:
        Int array `(batch, heads, num_hashes, length)`.
    """
    vectors = np.asarray(vectors, np.float64)
    rotations = np.asarray(rotations, np.float64)
    batch, heads, length, _ = vectors.shape
    num_hashes = rotations.shape[2]
    mask = _full_mask(mask, batch, length)
    buckets = np.zeros((batch, heads, num_hashes, length), int)
    for b, h, r, t in np.ndindex(buckets.shape):
        if mask[b, t]:
            buckets[b, h, r, t] = _bucket_of(
                vectors[b, h, t], rotations[h, :, r], factors
            )
        else:
            buckets[b, h, r, t] = math.prod(factors)
    return buckets


def _bucket_of(vector, rotation, factors):
    bucket, digit_weight, column = 0, 1, 0
    for factor in factors:
        rotated = vector @ rotation[:, column : column + factor // 2]
        digit = np.argmax(np.concatenate([rotated, -rotated]))
        bucket += digit_weight * int(digit)
        digit_weight *= factor
        column += factor // 2
    return bucket


# --- LSH attention ---------------------------------------------------------


def lsh_attention(
    query_key,
    value,
    buckets,
    *,
    chunk_length,
    num_chunks_before=1,
    num_chunks_after=0,
    causal=False,
    scope="bucket",
    mask=None,
    wrap=False,
    discount_duplicates=False,
    probability=None,
    dropout_mask=None,
    bias=None,
):
    """LSH attention: one softmax over the keys that a query meets.

    A query meets the keys of its window once per round; the softmax runs over
    the multiset of all meetings of all rounds. A token never meets itself; a
    valid token that meets nobody in any round outputs its own value. Masked
    keys are never met, masked queries output zeros.

    Args:
        query_key: `(batch, heads, length, dim)`.
        value: `(batch, heads, length, value_dim)`.
        buckets: Int `(batch, heads, num_hashes, length)`. What they hold at
            masked positions does not matter.
        scope: `"chunk"`: the window of sorted rank `i` is every key in chunks
            `i // chunk_length - num_chunks_before` to `... + num_chunks_after`
            of the same round. `"bucket"`: the keys of the same bucket at most
            `num_chunks_before * chunk_length` ranks earlier or
            `num_chunks_after * chunk_length` ranks later.
        mask: Bool `(batch, length)`, True is valid.
        wrap: For `scope="chunk"`: chunks lie on a circle through all rounds.
        discount_duplicates: Subtract `log(N)` from a score that is met `N`
            times.
        probability: Function of a pair's cosine and the number of valid
            tokens. Subtract its logarithm too, and `log(N)`.
        dropout_mask: Multipliers of the softmax weights (0 or
            `1 / (1 - rate)`), indexed by the meeting, of shape `(batch, heads,
            num_hashes, padded_length, window)` with `padded_length` the next
            multiple of `chunk_length` and `window = chunk_length *
            (num_chunks_before + 1 + num_chunks_after)`: the query's sorted
            rank, and the key's place in the row of chunks [before, own,
            after]. A token's own value is never dropped.
        bias: `(heads, length, length)`, added to the scores.

    Returns:
        `(batch, heads, length, value_dim)`.
    """
    query_key = np.asarray(query_key, np.float64)
    value = np.asarray(value, np.float64)
    batch, heads, length, _ = query_key.shape
    mask = _full_mask(mask, batch, length)
    window = (chunk_length, num_chunks_before, num_chunks_after, scope, wrap)
    output = np.zeros(value.shape)
    for b, h in np.ndindex(batch, heads):
        rounds = [
            _sort_round(ids, mask[b], chunk_length) for ids in buckets[b, h]
        ]
        valid = int(mask[b].sum())
        for query in range(length):
            if not mask[b, query]:
                continue
            meetings = [
                (place, key)
                for place, key in _in_view(rounds, query, *window)
                if _may_meet(query, key, mask[b], causal)
            ]
            if not meetings:
                output[b, h, query] = value[b, h, query]
                continue
            weights = _weigh(
                query_key[b, h],
                query,
                meetings,
                discount_duplicates or probability,
                None if bias is None else bias[h],
                probability and functools.partial(probability, length=valid),
            )
            for (place, key), weight in zip(meetings, weights, strict=True):
                if dropout_mask is not None:
                    weight = weight * dropout_mask[b, h][place]
                output[b, h, query] += weight * value[b, h, key]
    return output


def _weigh(query_key, query, meetings, discount_duplicates, bias, probability):
    """Softmax over the meetings of one query."""
    keys = [key for _, key in meetings]
    scores = []
    for key in keys:
        score = query_key[query] @ unit_length(query_key[key])
        if bias is not None:
            score += bias[query, key]
        if discount_duplicates:
            score -= math.log(keys.count(key))
        if probability:
            cosine = unit_length(query_key[query]) @ unit_length(query_key[key])
            score -= math.log(probability(cosine))
        scores.append(score)
    return softmax(scores)


def _may_meet(query, key, mask, causal):
    if key >= len(mask) or not mask[key] or key == query:
        return False
    return key < query or not causal


def _sort_round(ids, mask, chunk_length):
    """Positions of one round in sorted order, with the bucket of each rank.

    Masked positions have a bucket of their own that sorts last; the positions
    that fill the last chunk sort after everything.
    """
    length = len(ids)
    last = int(max(ids)) + 1
    keys = [int(ids[t]) if mask[t] else last for t in range(length)]
    while len(keys) % chunk_length:
        keys.append(last + 1)
    order = sorted(range(len(keys)), key=lambda t: keys[t])  # stable
    return order, [keys[t] for t in order]


def _in_view(rounds, query, chunk_length, before, after, scope, wrap):
    """All `((round, rank of the query, slot of the key), key)` in view."""
    for r, (order, sorted_buckets) in enumerate(rounds):
        rank = order.index(query)
        if scope == "bucket":
            first_rank = (rank // chunk_length - before) * chunk_length
            for other in range(len(order)):
                if sorted_buckets[other] != sorted_buckets[rank]:
                    continue
                earlier = 0 < rank - other <= before * chunk_length
                later = 0 < other - rank <= after * chunk_length
                if earlier or later:
                    yield (r, rank, other - first_rank), order[other]
        elif scope == "chunk":
            for step in range(-before, after + 1):
                chunk = _chunk_at(rounds, r, rank, step, chunk_length, wrap)
                for i, key in enumerate(chunk):
                    slot = (step + before) * chunk_length + i
                    yield (r, rank, slot), key
        else:
            raise ValueError(f"scope={scope}")


def _chunk_at(rounds, r, rank, step, chunk_length, wrap):
    """Positions in the chunk that is `step` chunks away from that of `rank`."""
    num_chunks = len(rounds[r][0]) // chunk_length
    chunk = rank // chunk_length + step
    if wrap:  # on one circle through the chunks of all rounds
        place = (r * num_chunks + chunk) % (len(rounds) * num_chunks)
        r, chunk = divmod(place, num_chunks)
    elif not 0 <= chunk < num_chunks:
        return []
    return rounds[r][0][chunk * chunk_length : (chunk + 1) * chunk_length]


def unit_length(key):
    """The key that LSH attention scores against: `q @ unit_length(k)`.

    `k / sqrt(mean(k**2) + epsilon) / sqrt(dim)`, thus of length one, nearly.
    """
    return key / math.sqrt(np.mean(key**2) + NORM_EPSILON) / math.sqrt(len(key))


# --- Exact attention -------------------------------------------------------


def exact_shared_attention(query_key, value, *, causal, mask=None, bias=None):
    """What LSH attention approximates: every key, each once, self hidden."""
    query_key = np.asarray(query_key, np.float64)
    value = np.asarray(value, np.float64)
    batch, heads, length, _ = query_key.shape
    mask = _full_mask(mask, batch, length)
    output = np.zeros(value.shape)
    for b, h, query in np.ndindex(batch, heads, length):
        if not mask[b, query]:
            continue
        keys = [
            k for k in range(length) if _may_meet(query, k, mask[b], causal)
        ]
        if not keys:
            output[b, h, query] = value[b, h, query]
            continue
        scores = np.array(
            [
                query_key[b, h, query] @ unit_length(query_key[b, h, key])
                for key in keys
            ]
        )
        if bias is not None:
            scores += bias[h, query, keys]
        output[b, h, query] = softmax(scores) @ value[b, h, keys]
    return output


def exact_attention(query, key, value, *, causal, mask=None, bias=None):
    """Scaled dot-product attention; with `causal`, up to and with itself.

    Masked keys are never seen, masked queries give zeros.
    """
    length = np.shape(query)[2]
    return local_attention(
        query,
        key,
        value,
        chunk_length=length,
        num_chunks_before=0,
        num_chunks_after=0,
        causal=causal,
        mask=mask,
        bias=bias,
    )


# --- Local attention -------------------------------------------------------


def local_attention(
    query,
    key,
    value,
    *,
    chunk_length,
    num_chunks_before,
    num_chunks_after,
    causal,
    mask=None,
    wrap=False,
    bias=None,
):
    """Attention inside a chunk of positions and its neighbours.

    Args:
        query, key: `(batch, heads, length, dim)`.
        value: `(batch, heads, length, value_dim)`.
        causal: A query sees keys up to its own position, itself included.
        mask: Bool `(batch, length)`: masked keys are never seen, masked
            queries give zeros. Positions that fill the last chunk are masked.
        wrap: Chunks lie on a circle. A key that is met twice counts twice.
        bias: `(heads, length, length)`, added to the scaled scores.

    Returns:
        `(batch, heads, length, value_dim)`.
    """
    query = np.asarray(query, np.float64)
    key = np.asarray(key, np.float64)
    value = np.asarray(value, np.float64)
    batch, heads, length, dim = query.shape
    mask = _full_mask(mask, batch, length)
    output = np.zeros(value.shape)
    for b, h, t in np.ndindex(batch, heads, length):
        if not mask[b, t]:
            continue
        seen = []
        for step in range(-num_chunks_before, num_chunks_after + 1):
            chunk = _positions_at(t, step, length, chunk_length, wrap)
            for s in chunk:
                if mask[b, s] and (s <= t or not causal):
                    seen.append(s)
        if seen:
            scores = np.array([query[b, h, t] @ key[b, h, s] for s in seen])
            scores /= math.sqrt(dim)
            if bias is not None:
                scores += bias[h, t, seen]
            output[b, h, t] = softmax(scores) @ value[b, h, seen]
    return output


def _positions_at(position, step, length, chunk_length, wrap):
    num_chunks = -(-length // chunk_length)
    chunk = position // chunk_length + step
    if wrap:
        chunk %= num_chunks
    start, stop = chunk * chunk_length, (chunk + 1) * chunk_length
    return [s for s in range(start, stop) if 0 <= s < length]


# --- Positions -------------------------------------------------------------


def axial_positions(tables, length):
    """Row `p` joins row `i` of each table, with `i` the axis index of `p`.

    Args:
        tables: List of `(axis_length, axis_dim)`; positions are counted in
            row-major order over the axes.
        length: int. Number of rows to return.

    Returns:
        `(length, sum of axis_dim)`.
    """
    shape = [len(table) for table in tables]
    rows = []
    for position in range(length):
        indices = np.unravel_index(position, shape)
        rows.append(
            np.concatenate(
                [table[i] for table, i in zip(tables, indices, strict=True)]
            )
        )
    return np.array(rows, np.float64)


# --- Shared helpers --------------------------------------------------------


def softmax(scores):
    exponentials = np.exp(np.array(scores) - np.max(scores))
    return exponentials / exponentials.sum()


def _full_mask(mask, batch, length):
    if mask is None:
        return np.ones((batch, length), bool)
    return np.asarray(mask, bool)
