"""A server that answers for a long time stays as it is."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import endpoints, export_saved_model
from keras_reformer.loaders import runner
from tests.export.tiny import LENGTH, ONE_BLOCK, VOCABULARY, causal_lm

REQUESTS, WARM = 2000, 500
# What a process may grow by after it is warm, in MiB.
SLACK = 16


def requests():
    draws = np.random.default_rng(0)
    for _ in range(REQUESTS):
        shape = draws.integers(1, 4), draws.integers(1, LENGTH + 1)
        yield draws.integers(VOCABULARY, size=shape, dtype="int32")


def resident_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_memory_does_not_grow(program, tmp_path, jit_compile):
    model = causal_lm(**ONE_BLOCK)
    path = export_saved_model(
        model,
        str(tmp_path),
        length_buckets=(16, 32, 64),
        jit_compile=jit_compile,
    )
    with runner.Runner(program, path) as c:
        first = None
        for count, token_ids in enumerate(requests()):
            if count == WARM:
                warm = resident_mib(c.pid)
            answer = c.run("serve", {"token_ids": token_ids})["logits"]
            first = (token_ids, answer) if first is None else first
        grown = resident_mib(c.pid) - warm
        again = c.run("serve", {"token_ids": first[0]})["logits"]
    print(f"jit={jit_compile}: {warm:.0f} MiB warm, grown by {grown:.1f}")
    np.testing.assert_array_equal(again, first[1])
    assert grown < SLACK


@pytest.mark.slow
def test_nothing_is_traced_again():
    model = causal_lm(**ONE_BLOCK)
    serve = endpoints.endpoints(model)[0]
    limits = endpoints.limits_of(model)
    function = endpoints.serving_function(serve, limits)
    for token_ids in requests():
        function(tf.constant(token_ids))
    assert function.experimental_get_tracing_count() == 1
