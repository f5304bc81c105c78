"""Fixtures that every test shares."""

import gc
import os

# Before the first import of keras or matplotlib, which read them once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"
# Two devices for jax too, in tests of engines.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_two_devices = "--xla_force_host_platform_device_count=2"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_two_devices}"

import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from tests.support import selection  # noqa: E402
from tests.support.executions import EXECUTIONS  # noqa: E402

# Two devices, so that strategies have two replicas.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    2 * [tf.config.LogicalDeviceConfiguration()],
)


def pytest_addoption(parser):
    parser.addoption(
        "--quick",
        action="store_true",
        help="of every test, cases that show each value once, eagerly, and "
        "one under XLA",
    )


# First, since pytest leaves out what is marked as slow in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    if not config.option.quick:
        for cases in selection.cases_by_test(items):
            selection.mark_what_is_covered(cases)
        return
    chosen = selection.quick_items(items)
    left_out = [item for item in items if item not in chosen]
    items[:] = [item for item in items if item in chosen]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    # Garbage is in what tests make. To look through all that was imported, at
    # each collection, took a twentieth of the suite's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy. One a process: two of the same devices number what they
    reduce eagerly alike, which TensorFlow then takes for one reduction."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(autouse=True)
def clean_keras():
    """Gives every test the same seed and no state of the test before it."""
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(17)
    yield
    keras.config.set_dtype_policy(policy)
    keras.utils.clear_session(free_memory=False)


@pytest.fixture(params=EXECUTIONS)
def execution(request):
    """Runs a test three times: eagerly, in a `tf.function` and under XLA.

    The fixture is a function that wraps a callable:
    `result = execution(callable)(tensor)`.
    """
    return EXECUTIONS[request.param]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The path of an exported language model of one block."""
    from keras_reformer.export import export_saved_model
    from tests.support.tiny_exports import ONE_BLOCK, causal_lm

    folder = str(tmp_path_factory.mktemp("exported") / "tiny")
    return export_saved_model(causal_lm(**ONE_BLOCK), folder)
