import os

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import warmup

REQUESTS = [
    ("serve", {"token_ids": np.arange(6, dtype="int32").reshape(2, 3)}),
    (
        "score",
        {
            # Long enough for sizes of three bytes.
            "token_ids": np.full((1, 70_000), 7, "int32"),
            "lengths": np.array([70_000], "int32"),
        },
    ),
]


def test_what_is_written_is_read(tmp_path):
    assert warmup.read(str(tmp_path)) == []
    warmup.write(str(tmp_path), "demo", REQUESTS)
    assert os.path.exists(
        tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    )
    read = warmup.read(str(tmp_path))
    assert [name for name, _ in read] == ["serve", "score"]
    for (_, found), (_, expected) in zip(read, REQUESTS, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def test_the_official_messages_agree(tmp_path):
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_log_pb2

    warmup.write(str(tmp_path), "demo", REQUESTS)
    path = str(tmp_path / "assets.extra" / "tf_serving_warmup_requests")
    records = tf.data.TFRecordDataset([path]).as_numpy_iterator()
    for record, (name, inputs) in zip(records, REQUESTS, strict=True):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        assert request.model_spec.name == "demo"
        assert request.model_spec.signature_name == name
        assert request.inputs.keys() == inputs.keys()
        for key, value in inputs.items():
            found = tf.make_ndarray(request.inputs[key])
            np.testing.assert_array_equal(found, value)
