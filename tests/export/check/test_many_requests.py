"""A server that answers for a long time stays as it is, and so does training.

`benchmarks/soak.py` draws the same for ten thousand requests.
"""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import endpoints, export_saved_model
from keras_reformer.export.check import runner
from tests.support.tiny_exports import LENGTH, ONE_BLOCK, VOCABULARY, causal_lm

REQUESTS, WARM = 2000, 500
# What a process may grow by after it is warm, in MiB.
SLACK = 16
NEW_TOKENS = 4


def requests(name="serve"):
    """Token ids of many shapes, and what else an endpoint takes."""
    draws = np.random.default_rng(0)
    longest = LENGTH - NEW_TOKENS
    for _ in range(REQUESTS):
        shape = rows, length = draws.integers(1, 4), draws.integers(1, longest)
        lengths = draws.integers(1, length + 1, rows, dtype="int32")
        request = {
            "token_ids": draws.integers(VOCABULARY, size=shape, dtype="int32"),
            "lengths": lengths,
            "max_length": lengths + np.int32(NEW_TOKENS),
            "seed": draws.integers(2**31, size=rows, dtype="int32"),
            "temperature": np.ones(rows, "float32"),
        }
        names = ARGUMENTS[name] or request
        yield {key: request[key] for key in names}


ARGUMENTS = {
    "serve": ["token_ids"],
    "serve_padded": ["token_ids", "lengths"],
    "score": ["token_ids", "lengths"],
    "generate": None,
}


def resident_mib(pid="self"):
    status = pathlib.Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) / 1024


@pytest.fixture(scope="module", params=[False, True], ids=["graph", "xla"])
def path(request, tmp_path_factory):
    return export_saved_model(
        causal_lm(**ONE_BLOCK),
        str(tmp_path_factory.mktemp("many")),
        length_buckets=(16, 32, 64),
        jit_compile=request.param,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serve", "score", "generate"])
def test_memory_does_not_grow(program, path, name):
    with runner.Runner(program, path) as c:
        first = None
        for count, request in enumerate(requests(name)):
            if count == WARM:
                warm = resident_mib(c.pid)
            answer = c.run(name, request)
            first = (request, answer) if first is None else first
        grown = resident_mib(c.pid) - warm
        again = c.run(name, first[0])
    print(f"{name}: {warm:.0f} MiB warm, grown by {grown:.1f}")
    for key, value in first[1].items():
        np.testing.assert_array_equal(again[key], value)
    assert grown < SLACK


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_nothing_is_traced_again(name):
    model = causal_lm(**ONE_BLOCK)
    found = {each.name: each for each in endpoints.endpoints(model)}
    limits = endpoints.limits_of(model)
    function = endpoints.serving_function(found[name], limits)
    for _, request in zip(range(200), requests(name), strict=False):
        function(**request)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_training_traces_once_and_does_not_grow(monkeypatch):
    model = causal_lm(dropout=0.1)
    model.compile("adam")
    traces, sizes, step = [], [], model.train_step
    monkeypatch.setattr(
        model, "train_step", lambda data: (traces.append(1), step(data))[1]
    )

    def batches():
        draws = np.random.default_rng(0)
        while True:
            shape = 2, draws.integers(2, LENGTH + 1)
            yield draws.integers(VOCABULARY, size=shape, dtype="int32")

    spec = tf.TensorSpec((2, None), tf.int32)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    model.fit(
        dataset.prefetch(1),
        epochs=4,
        steps_per_epoch=WARM,
        shuffle=False,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: sizes.append(resident_mib())
            )
        ],
        verbose=0,
    )
    print(f"resident size after each {WARM} steps, MiB: {sizes}")
    assert len(traces) == 1
    assert sizes[-1] - sizes[0] < SLACK
