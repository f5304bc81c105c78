"""Preset folders and KerasHub itself, where it is installed."""

import keras
import numpy as np
import pytest

from keras_reformer.models import ReformerBackbone, from_preset
from tests.support import tiny

hub = pytest.importorskip("keras_hub", exc_type=ImportError)

IDS = tiny.make_ids(2, 20)


class HubBackbone(ReformerBackbone, hub.models.Backbone):
    """What KerasHub asks of a class: that it is one of its own."""


@pytest.fixture
def folder(tmp_path):
    tiny.make_model(**tiny.SMALLEST).save_to_preset(tmp_path)
    return tmp_path


def assert_same(found, folder):
    expected = ReformerBackbone.from_preset(folder)
    np.testing.assert_array_equal(found(IDS), expected(IDS))


def test_its_loader_reads_our_folders(folder):
    load = hub.models.Backbone.from_preset.__func__
    assert_same(load(ReformerBackbone, str(folder)), folder)


def test_the_check_that_stands_in_the_way(folder):
    with pytest.raises(ValueError, match="not a subclass of calling class"):
        hub.models.Backbone.from_preset(str(folder))


def test_a_class_of_both_opens_our_folders(folder, tmp_path):
    names = {"keras_reformer>ReformerBackbone": HubBackbone}
    with keras.saving.custom_object_scope(names):
        found = hub.models.Backbone.from_preset(str(folder))
    assert type(found) is HubBackbone
    assert_same(found, folder)


def test_we_read_its_folders(folder, tmp_path):
    model = ReformerBackbone.from_preset(folder)
    hub.models.Backbone.save_to_preset(model, str(tmp_path / "theirs"))
    found = from_preset(tmp_path / "theirs")
    assert type(found) is ReformerBackbone
    np.testing.assert_array_equal(found(IDS), model(IDS))
