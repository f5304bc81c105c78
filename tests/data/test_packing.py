import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.data import pack_documents
from keras_reformer.ops.attention.segments import check_segment_ids


def make_documents(count=60, longest=25, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(1, 99, rng.integers(0, longest + 1)).tolist()
        for _ in range(count)
    ]


def as_dataset(documents, dtype="int64"):
    return tf.data.Dataset.from_generator(
        lambda: documents, output_signature=tf.TensorSpec((None,), dtype)
    )


def pack(documents, length, **options):
    rows = pack_documents(as_dataset(documents), length, **options)
    batch = next(iter(rows.batch(1000)))
    return {name: x.numpy() for name, x in batch.items()}


def unpacked(rows):
    """The documents in rows, sorted."""
    found = []
    for ids, segments, mask in zip(
        rows["token_ids"],
        rows["segment_ids"],
        rows["padding_mask"],
        strict=True,
    ):
        for number in np.unique(segments[mask]):
            found.append(ids[mask & (segments == number)].tolist())
    return sorted(found)


@pytest.mark.parametrize("open_rows", [1, 5])
def test_rows_hold_each_document_once_and_whole(open_rows):
    documents = make_documents()
    rows = pack(documents, 30, open_rows=open_rows, padding_id=-1)
    assert unpacked(rows) == sorted(x for x in documents if x)
    for name, dtype in (
        ("token_ids", "int32"),
        ("segment_ids", "int32"),
        ("padding_mask", "bool"),
    ):
        assert rows[name].dtype == dtype and rows[name].shape[1] == 30
    mask = rows["padding_mask"]
    # Padding is at the end, and has a segment of its own.
    assert (mask[:, :-1] >= mask[:, 1:]).all()
    assert (rows["token_ids"][~mask] == -1).all()
    check_segment_ids(tf.constant(rows["segment_ids"]), None)
    count = rows["segment_ids"].max(axis=1, where=mask, initial=0)
    assert (rows["segment_ids"][~mask] > count.repeat((~mask).sum(1))).all()


def test_more_open_rows_leave_less_padding():
    documents = make_documents(200)
    num_rows = [
        len(pack(documents, 30, open_rows=n)["token_ids"]) for n in (1, 16)
    ]
    least = sum(map(len, documents)) / 30
    assert num_rows[1] < 1.05 * least < num_rows[0]


def test_long_documents_are_cut_and_empty_ones_left_out():
    rows = pack([[], list(range(1, 8)), [], [9]], 3)
    assert unpacked(rows) == [[1, 2, 3], [4, 5, 6], [7], [9]]
    assert len(rows["token_ids"]) == 3


def test_static_shapes_and_no_end():
    documents = as_dataset(make_documents()).repeat()
    rows = pack_documents(documents, 30).batch(4, drop_remainder=True)
    assert rows.element_spec["segment_ids"].shape == (4, 30)
    for batch in rows.take(50):
        assert batch["padding_mask"].numpy().mean() > 0.7


@pytest.mark.parametrize(
    "documents, options, received",
    [
        (as_dataset([]), {"length": 0}, "length=0"),
        (as_dataset([]), {"length": 4, "open_rows": 1.5}, "open_rows=1.5"),
        (as_dataset([], "float32"), {"length": 4}, "float32"),
        (as_dataset([]).batch(2), {"length": 4}, r"shape=\(None, None\)"),
        ([[1, 2]], {"length": 4}, r"\[\[1, 2\]\]"),
    ],
    ids=["length", "open rows", "float", "batch", "list"],
)
def test_bad_arguments(documents, options, received):
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        pack_documents(documents, **options)
