"""Initializers and regularizers of all kernels of a backbone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.reversible import scan
from tests.support import tiny

IDS = tiny.make_ids()
L2 = 0.25


def kernels(backbone):
    """Kernels of the blocks, found without the library's help."""
    return [
        variable.numpy()
        for variable in backbone.sequence.weights
        if variable.name == "kernel"
    ]


def penalty(model):
    return L2 * sum(np.sum(k**2) for k in kernels(model.backbone))


def make_model(**options):
    return tiny.make_model(**{"attention_layers": ("local",), **options})


@pytest.fixture
def loops(monkeypatch):
    """How often a loop over equal blocks turns, for each that is traced."""
    counts, original = [], scan.ScannedStack.__init__

    def init(self, branches, count):
        counts.append(count)
        original(self, branches, count)

    monkeypatch.setattr(scan.ScannedStack, "__init__", init)
    return counts


def results(model, run_eagerly=True):
    """Loss in `evaluate` and in `fit`, of steps that change nothing."""
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=run_eagerly)
    evaluated = model.evaluate(IDS, verbose=0)
    (fitted,) = model.fit(IDS, verbose=0).history["loss"]
    return np.array([evaluated, fitted])


@pytest.mark.parametrize(
    "recompute, loop",
    [
        (True, False),
        (False, False),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
def test_every_kernel_counts_once(recompute, loop, loops):
    # With two buckets rotations hardly matter, which training draws anew.
    kinds = ("local",) if loop else ("local", "lsh")
    options = {"recompute": recompute, "attention_layers": kinds}
    plain = make_model(num_buckets=2, **options)
    model = make_model(
        kernel_regularizer=keras.regularizers.L2(L2), num_buckets=2, **options
    )
    assert len(kernels(model.backbone)) == (12 if loop else 11)
    model.set_weights(plain.get_weights())
    expected = results(plain) + penalty(model)
    found = results(model, run_eagerly=not loop)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if loop else 1e-3)
    assert loops == [2] * loop


@pytest.mark.parametrize("recompute", [True, False])
def test_gradients_are_those_of_the_sum(recompute, loops):
    model = make_model(
        kernel_regularizer=keras.regularizers.L2(L2), recompute=recompute
    )
    before = kernels(model.backbone)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=not recompute)
    # Where no position counts, only the penalty is left.
    weights = np.zeros(IDS.shape, "float32")
    model.fit(IDS, IDS, sample_weight=weights, verbose=0)
    for old, new in zip(before, kernels(model.backbone), strict=True):
        np.testing.assert_allclose(new, old * (1 - 0.2 * L2), atol=1e-6)
    assert loops == [2] * recompute


def test_initializers_reach_every_kernel():
    backbone = tiny.make_backbone(
        kernel_initializer=keras.initializers.RandomNormal(2.0, 0.01)
    )
    for kernel in kernels(backbone):
        assert abs(kernel.mean() - 2) < 0.01
        assert 0.005 < kernel.std() < 0.02


def test_config_keeps_both(tmp_path):
    backbone = tiny.make_backbone(
        kernel_initializer=keras.initializers.RandomNormal(0.0, 0.01, seed=3),
        kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2),
        **tiny.SMALLEST,
    )
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    assert loaded.get_config() == backbone.get_config()
    tf.debugging.assert_near(sum(loaded.losses), sum(backbone.losses))
    assert len(loaded.losses) == 6


def test_names_are_taken_too():
    backbone = tiny.make_backbone(
        kernel_initializer="ones", kernel_regularizer="l2", **tiny.SMALLEST
    )
    assert all((kernel == 1).all() for kernel in kernels(backbone))
    total = sum(np.sum(k**2) for k in kernels(backbone))
    np.testing.assert_allclose(sum(backbone.losses), 0.01 * total, rtol=1e-5)
