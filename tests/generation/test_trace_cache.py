import gc
import weakref

import keras

from keras_reformer.generation import (
    GreedySampler,
    TopKSampler,
    TraceCache,
    settings_of,
)


class Traces:
    """What would be traced, for so many options."""


def get(cache, layer, sampler):
    return cache.get(layer, settings_of(sampler), Traces)


def test_equal_options_share_traces():
    cache, layer = TraceCache(), keras.layers.Dense(3)
    first = get(cache, layer, TopKSampler(3))
    assert get(cache, layer, TopKSampler(3)) is first
    assert get(cache, layer, TopKSampler(4)) is not first
    assert get(cache, layer, GreedySampler()) is not first
    assert get(cache, layer, TopKSampler(3)) is first


class Banned(TopKSampler):
    """A user's sampler with settings that have no hash."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids


class Hub:
    """One that is called as those of KerasHub are."""

    def __init__(self):
        self.settings = {"k": 5}
        self.seed_generator = keras.random.SeedGenerator(1)

    def __call__(self, **options):
        return options["prompt"]


def test_samplers_whose_settings_change():
    cache, layer = TraceCache(), keras.layers.Dense(3)
    banned, hub = Banned([1]), Hub()
    for sampler, change in [
        (banned, lambda: banned.ids.append(2)),
        (hub, lambda: hub.settings.update(k=6)),
        (hub.__call__, lambda: hub.settings.update(k=7)),
    ]:
        first = get(cache, layer, sampler)
        assert get(cache, layer, sampler) is first
        change()
        assert get(cache, layer, sampler) is not first
    # Its draws are its own.
    assert get(cache, layer, Hub()) is not get(cache, layer, Hub())


def test_what_is_no_attribute_keeps_its_first_value():
    cache, layer, settings = TraceCache(), keras.layers.Dense(3), [1]

    def sampler(prompt, **options):
        return prompt + settings[0]

    first = get(cache, layer, sampler)
    settings[0] = 2
    assert get(cache, layer, sampler) is first


def test_changed_layers_drop_all_traces():
    cache, layer = TraceCache(), keras.layers.Dense(3)
    old = [weakref.ref(get(cache, layer, TopKSampler(k))) for k in (1, 2)]
    layer.activation = keras.ops.tanh
    get(cache, layer, GreedySampler())
    gc.collect()
    assert [x() for x in old] == [None, None]
    assert len(cache) == 1


def test_a_sampler_for_each_request_does_not_fill_memory():
    cache, layer = TraceCache(), keras.layers.Dense(3)
    often = get(cache, layer, GreedySampler())
    for k in range(1, 50):
        get(cache, layer, TopKSampler(k))
        assert get(cache, layer, GreedySampler()) is often
    assert len(cache) == 8
