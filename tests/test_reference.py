"""The references against hand-made cases and against each other."""

import numpy as np
import pytest

from tests.support import reference


def random_tensors(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape) for shape in shapes]


def random_buckets(shape, num_buckets, seed=1):
    return np.random.default_rng(seed).integers(0, num_buckets, shape)


def meeting_counts(buckets, mask=None, **options):
    """How often each query meets each key, for one example and head.

    Relative to the key that it meets least often.
    Equal scores make equal weights, and one-hot values tell whose they are.
    A token that meets nobody shows as one meeting with itself.
    """
    buckets = np.asarray(buckets)[None, None]
    length = buckets.shape[-1]
    weights = reference.lsh_attention(
        np.zeros((1, 1, length, 2)),
        np.eye(length)[None, None],
        buckets,
        mask=mask,
        **options,
    )[0, 0]
    smallest = np.where(weights > 0, weights, 1).min(axis=-1, keepdims=True)
    return np.rint(weights / smallest).astype(int).tolist()


# --- Hashing ---


def test_hash_of_one_factor_counts_the_positive_half_first():
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[None, None]
    rotations = np.eye(2)[None, :, None]
    buckets = reference.hash_vectors(vectors, rotations, [4])
    assert buckets.tolist() == [[[[0, 1, 2, 3]]]]


def test_hash_of_factors_puts_the_first_factor_last():
    # The first factor of 2 tells the sign of x, the second of 4 the axis.
    vectors = np.array([[3, 1], [-3, 1], [1, 3], [-1, -3]])[None, None]
    rotations = np.array([[1, 1, 0], [0, 0, 1]])[None, :, None]
    buckets = reference.hash_vectors(vectors, rotations, [2, 4])
    assert buckets[0, 0, 0].tolist() == [0 + 2 * 0, 1 + 2 * 2, 2 * 1, 1 + 2 * 3]


def test_hash_of_masked_positions_is_one_more_bucket():
    vectors, rotations = random_tensors((2, 3, 5, 7), (3, 7, 2, 5))
    mask = np.arange(5) < np.array([[5], [3]])
    buckets = reference.hash_vectors(vectors, rotations, [4, 6], mask)
    plain = reference.hash_vectors(vectors, rotations, [4, 6])
    assert buckets.shape == (2, 3, 2, 5)
    assert (buckets[1, :, :, 3:] == 24).all()
    np.testing.assert_array_equal(buckets[0], plain[0])
    np.testing.assert_array_equal(buckets[1, ..., :3], plain[1, ..., :3])


# --- What a query meets ---


def test_chunk_scope_meets_own_and_earlier_chunk():
    counts = meeting_counts([[0] * 5], chunk_length=2, scope="chunk")
    assert counts == [
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
    ]


def test_chunk_scope_follows_the_sorted_order_across_buckets():
    # Sorted order: 1 3 | 0 2.
    counts = meeting_counts(
        [[1, 0, 1, 0]], chunk_length=2, num_chunks_before=0, scope="chunk"
    )
    assert counts == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]


def test_chunk_scope_wraps_into_the_round_before():
    # Round 0: 0 1 | 2 3, round 1: 3 2 | 1 0 (buckets 0 1 2 3 reversed).
    counts = meeting_counts(
        [[0, 1, 2, 3], [3, 2, 1, 0]], chunk_length=2, scope="chunk", wrap=True
    )
    # Token 3, round 0: own 2, before 0 1. Round 1: own 2, before (the last
    # chunk of round 0) 2 and itself. Token 0, round 0: own 1, before (the
    # last chunk of round 1) 1 and itself. Round 1: own 1, before 3 2.
    assert counts[3] == [1, 1, 3, 0]
    assert counts[0] == [0, 3, 1, 1]


def test_chunk_scope_wraps_after_the_last_chunk():
    options = dict(
        chunk_length=2, num_chunks_before=0, num_chunks_after=1, scope="chunk"
    )
    ids = [[0] * 6]
    assert meeting_counts(ids, **options)[5] == [0, 0, 0, 0, 1, 0]
    wrapped = meeting_counts(ids, **options, wrap=True)
    assert wrapped[5] == [1, 1, 0, 0, 1, 0]


def test_bucket_scope_meets_the_last_keys_of_its_bucket():
    # Chunk borders play no part: always up to two keys of the same bucket.
    counts = meeting_counts([[0, 1, 0, 0, 0, 1, 0]], chunk_length=2)
    assert counts == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
    ]


def test_bucket_scope_meets_as_many_later_keys_as_asked():
    options = dict(chunk_length=1, num_chunks_before=2, num_chunks_after=1)
    counts = meeting_counts([[0] * 5], **options)
    assert counts[0] == [0, 1, 0, 0, 0]
    assert counts[3] == [0, 1, 1, 0, 1]


def test_rounds_add_up_and_a_lonely_round_is_no_meeting_with_self():
    counts = meeting_counts([[0, 0, 1], [0, 0, 0], [0, 1, 1]], chunk_length=4)
    assert counts == [[1, 0, 0], [1, 0, 0], [1, 2, 0]]


def test_discount_makes_each_key_count_once():
    counts = meeting_counts(
        [[0, 0, 1], [0, 0, 0], [0, 1, 1]],
        chunk_length=4,
        discount_duplicates=True,
    )
    assert counts == [[1, 0, 0], [1, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_masked_tokens_are_met_by_nobody_and_give_zeros(scope):
    mask = np.array([[True, False, True, True, False]])
    buckets = random_buckets((3, 5), 2)
    options = dict(chunk_length=8, scope=scope, num_chunks_after=1)
    counts = np.array(meeting_counts(buckets, mask, **options))
    assert (counts[:, ~mask[0]] == 0).all()
    assert (counts[~mask[0]] == 0).all()
    assert (counts[mask[0]].sum(axis=-1) > 0).all()


def test_masked_tokens_sort_last_wherever_they_stand():
    # Sorted order: 1 2 | 3 0.
    counts = meeting_counts(
        [[0, 0, 1, 1]],
        np.array([[False, True, True, True]]),
        chunk_length=2,
        num_chunks_before=0,
        scope="chunk",
    )
    assert counts == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


# --- LSH attention ---


def test_lsh_attention_by_hand():
    # Keys of unit length: token 2 scores token 0 with 4 and token 1 with 3,
    # and meets token 1 twice.
    query_key = np.array([[7.0, 0], [0, 2], [4, 3]])[None, None]
    value = np.array([[1.0], [10], [100]])[None, None]
    buckets = np.array([[0, 0, 0], [1, 0, 0]])[None, None]
    output = reference.lsh_attention(
        query_key, value, buckets, chunk_length=4, causal=True
    )[0, 0, :, 0]
    first, second = np.exp(4), 2 * np.exp(3)
    expected = (first * 1 + second * 10) / (first + second)
    np.testing.assert_allclose(output, [1, 1, expected], rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_one_bucket_in_one_chunk_is_exact_attention(causal, masked, scope):
    query_key, value = random_tensors((2, 3, 7, 5), (2, 3, 7, 2))
    mask = np.arange(7) < np.array([[7], [4]]) if masked else None
    output = reference.lsh_attention(
        query_key,
        value,
        np.zeros((2, 3, 2, 7), int),
        chunk_length=11,
        num_chunks_before=1,
        num_chunks_after=1,
        causal=causal,
        scope=scope,
        mask=mask,
    )
    exact = reference.exact_shared_attention(
        query_key, value, causal=causal, mask=mask
    )
    np.testing.assert_allclose(output, exact, atol=1e-12)


@pytest.mark.parametrize("wrap", [False, True])
def test_discounted_chunks_over_everything_are_exact_attention(wrap):
    query_key, value = random_tensors((1, 2, 6, 5), (1, 2, 6, 3))
    output = reference.lsh_attention(
        query_key,
        value,
        random_buckets((1, 2, 3, 6), 4),
        chunk_length=2,
        num_chunks_before=2,
        num_chunks_after=2,
        scope="chunk",
        wrap=wrap,
        discount_duplicates=True,
    )
    exact = reference.exact_shared_attention(query_key, value, causal=False)
    np.testing.assert_allclose(output, exact, atol=1e-12)


def test_a_bucket_for_each_token_gives_own_values():
    query_key, value = random_tensors((1, 2, 5, 3), (1, 2, 5, 4))
    buckets = np.broadcast_to(np.arange(5), (1, 2, 2, 5))
    output = reference.lsh_attention(query_key, value, buckets, chunk_length=2)
    np.testing.assert_array_equal(output, value)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7])
def test_bucket_scope_gives_a_prefix_what_it_had_in_the_whole(length):
    query_key, value = random_tensors((1, 2, 13, 5), (1, 2, 13, 3))
    buckets = random_buckets((1, 2, 3, 13), 3)
    options = dict(chunk_length=3, causal=True)
    whole = reference.lsh_attention(query_key, value, buckets, **options)
    prefix = reference.lsh_attention(
        query_key[:, :, :length],
        value[:, :, :length],
        buckets[..., :length],
        **options,
    )
    padded = reference.lsh_attention(
        query_key, value, buckets, mask=np.arange(13)[None] < length, **options
    )
    np.testing.assert_allclose(whole[:, :, :length], prefix, atol=1e-12)
    np.testing.assert_allclose(padded[:, :, :length], prefix, atol=1e-12)
    assert (padded[:, :, length:] == 0).all()


@pytest.mark.parametrize("wrap", [False, True])
def test_chunk_scope_hides_later_content(wrap):
    query_key, value, other = random_tensors(
        (1, 2, 11, 5), (1, 2, 11, 3), (1, 2, 11, 5)
    )
    buckets = random_buckets((1, 2, 3, 11), 4)
    options = dict(chunk_length=3, causal=True, scope="chunk", wrap=wrap)
    before = reference.lsh_attention(query_key, value, buckets, **options)
    query_key[:, :, 6:] = other[:, :, 6:]
    value[:, :, 6:] += 1
    after = reference.lsh_attention(query_key, value, buckets, **options)
    np.testing.assert_array_equal(before[:, :, :6], after[:, :, :6])
    assert (before[:, :, 6:] != after[:, :, 6:]).all()


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_masked_content_and_buckets_change_nothing(scope):
    query_key, value = random_tensors((1, 2, 11, 5), (1, 2, 11, 3))
    buckets = random_buckets((1, 2, 3, 11), 4)
    mask = np.random.default_rng(2).random((1, 11)) < 0.6
    options = dict(chunk_length=3, scope=scope, wrap=True, mask=mask)
    before = reference.lsh_attention(query_key, value, buckets, **options)
    query_key[:, :, ~mask[0]] = 7
    value[:, :, ~mask[0]] = 1e6
    buckets[..., ~mask[0]] = 9
    after = reference.lsh_attention(query_key, value, buckets, **options)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("scope, keys", [("bucket", [0]), ("chunk", [1, 2, 0])])
def test_dropout_multiplies_the_weight_of_one_meeting(scope, keys):
    query_key, value = random_tensors((1, 1, 5, 3), (1, 1, 5, 2))
    buckets = np.array([[1, 0, 0, 1, 1]])[None, None]  # sorted: 1 2 | 0 3 | 4
    options = dict(chunk_length=2, causal=True, scope=scope)
    multipliers = np.ones((1, 1, 1, 6, 4))
    plain = reference.lsh_attention(query_key, value, buckets, **options)
    same = reference.lsh_attention(
        query_key, value, buckets, dropout_mask=multipliers, **options
    )
    np.testing.assert_array_equal(plain, same)
    # Token 3, rank 3, looks at 1 2 | 0 3: token 0 is in slot 2.
    multipliers[0, 0, 0, 3, 2] = 0.25
    dropped = reference.lsh_attention(
        query_key, value, buckets, dropout_mask=multipliers, **options
    )
    units = [reference.unit_length(query_key[0, 0, key]) for key in keys]
    weights = reference.softmax([query_key[0, 0, 3] @ key for key in units])
    np.testing.assert_allclose(
        plain[0, 0, 3] - dropped[0, 0, 3],
        0.75 * weights[keys.index(0)] * value[0, 0, 0],
    )
    others = [0, 1, 2, 4]
    np.testing.assert_array_equal(plain[0, 0, others], dropped[0, 0, others])


# --- Exact and local attention ---


@pytest.mark.parametrize("causal", [False, True])
def test_exact_attention_is_a_softmax_of_a_matrix(causal):
    query, key, value = random_tensors((2, 3, 7, 5), (2, 3, 7, 5), (2, 3, 7, 2))
    scores = np.einsum("bhqd,bhkd->bhqk", query, key) / np.sqrt(5)
    if causal:
        scores = np.where(np.tri(7, dtype=bool), scores, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    output = reference.exact_attention(query, key, value, causal=causal)
    np.testing.assert_allclose(output, weights @ value, atol=1e-12)


def local_counts(length, mask=None, **options):
    """How often each query meets each key, as `meeting_counts`."""
    weights = reference.local_attention(
        np.zeros((1, 1, length, 2)),
        np.zeros((1, 1, length, 2)),
        np.eye(length)[None, None],
        mask=mask,
        **options,
    )[0, 0]
    smallest = np.where(weights > 0, weights, 1).min(axis=-1, keepdims=True)
    return np.rint(weights / smallest).astype(int).tolist()


def test_local_attention_sees_its_chunk_and_the_neighbours():
    options = dict(chunk_length=2, num_chunks_before=1, num_chunks_after=0)
    causal = local_counts(5, causal=True, **options)
    assert causal == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    both_ways = local_counts(5, causal=False, **options)
    assert both_ways[0] == [1, 1, 0, 0, 0]
    assert both_ways[2] == [1, 1, 1, 1, 0]


def test_local_attention_wraps_and_counts_what_it_meets_twice():
    options = dict(chunk_length=2, causal=False, wrap=True)
    once = local_counts(6, num_chunks_before=1, num_chunks_after=0, **options)
    assert once[0] == [1, 1, 0, 0, 1, 1]
    twice = local_counts(4, num_chunks_before=1, num_chunks_after=1, **options)
    assert twice[0] == [1, 1, 2, 2]


def test_local_attention_hides_masked_keys_and_queries():
    mask = np.array([[True, False, True]])
    counts = local_counts(
        3,
        mask,
        chunk_length=3,
        num_chunks_before=0,
        num_chunks_after=0,
        causal=False,
    )
    assert counts == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]


# --- Positions ---


def test_axial_positions_count_in_row_major_order():
    tables = [np.array([[1.0], [2]]), np.array([[10.0, 0], [20, 0], [30, 0]])]
    assert reference.axial_positions(tables, 5).tolist() == [
        [1, 10, 0],
        [1, 20, 0],
        [1, 30, 0],
        [2, 10, 0],
        [2, 20, 0],
    ]
