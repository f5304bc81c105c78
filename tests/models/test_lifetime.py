"""Models that nobody holds any more are freed, whatever was traced of them."""

import gc
import weakref
from pathlib import Path

import keras
import pytest

from tests.support.tiny import make_ids, make_model

MEBIBYTE = 2**20


def use(kind, recompute=True):
    """References to a model and to one of its layers, after their use."""
    model = make_model(dropout=0.1, recompute=recompute)
    tokens = make_ids(2, 40)
    if kind == "predict":
        model.predict(tokens, verbose=0)
    elif kind == "generate":
        model.generate([[1, 2]], max_length=6, verbose=0)
    else:
        model.compile("adam")
        model.fit(tokens, verbose=0)
    return weakref.ref(model), weakref.ref(model.backbone.token_embedding)


@pytest.mark.parametrize(
    "recompute", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_fitted_models_are_freed(recompute):
    references = use("fit", recompute)
    keras.utils.clear_session()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(x, marks=pytest.mark.slow) for x in ("predict", "generate")],
)
def test_models_used_for_inference_are_freed(kind):
    references = use(kind)
    keras.utils.clear_session()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.slow
def test_ten_fitted_models_take_the_memory_of_few():
    sizes = []
    for _ in range(10):
        use("fit")
        keras.utils.clear_session()
        gc.collect()
        sizes.append(resident_bytes())
    # The first ones fill TensorFlow's own caches; five that stayed would add
    # 450 MiB.
    assert sizes[-1] - sizes[4] < 60 * MEBIBYTE


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
