"""Options that an engine's programs are compiled with."""

import os

import jax
import keras
import pytest

from keras_reformer.distribute import JaxEngine, compiling, programs
from tests.support import engines

FAST = "xla_cpu_enable_fast_min_max"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_other_devices_have_the_defaults(platform):
    assert compiling.compiler_options(platform) == {}


def test_flags_of_the_environment_come_first(monkeypatch):
    flags = os.environ["XLA_FLAGS"]
    options = compiling.compiler_options("cpu")
    assert options[FAST]
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --{FAST}=false")
    del options[FAST]
    assert compiling.compiler_options("cpu") == options


@pytest.mark.parametrize(
    "name, value", [("xla_cpu_no_such_option", True), (FAST, "neither")]
)
def test_what_this_jax_does_not_know_is_left_out(monkeypatch, name, value):
    monkeypatch.setattr(compiling, "_CPU", {name: value})
    assert compiling.compiler_options("cpu") == {}


def test_programs_are_compiled_with_the_options(monkeypatch):
    options = {"xla_cpu_no_such_option": True}
    monkeypatch.setattr(programs, "compiler_options", lambda _: options)
    model = engines.dense_model()
    model.compile(keras.optimizers.SGD(), "mse", engine=JaxEngine())
    x = keras.random.normal((4, 4))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        model.evaluate(x, x[:, :3], verbose=0)
