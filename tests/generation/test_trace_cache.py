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


def get(cache, version, sampler):
    return cache.get(version, settings_of(sampler), Traces)


def test_equal_options_share_traces():
    cache = TraceCache()
    first = get(cache, 1, TopKSampler(3))
    assert get(cache, 1, TopKSampler(3)) is first
    assert get(cache, 1, TopKSampler(4)) is not first
    assert get(cache, 1, GreedySampler()) is not first
    assert get(cache, 1, TopKSampler(3)) is first


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
    cache = TraceCache()
    banned, hub = Banned([1]), Hub()
    for sampler, change in [
        (banned, lambda: banned.ids.append(2)),
        (hub, lambda: hub.settings.update(k=6)),
        (hub.__call__, lambda: hub.settings.update(k=7)),
    ]:
        first = get(cache, 1, sampler)
        assert get(cache, 1, sampler) is first
        change()
        assert get(cache, 1, sampler) is not first
    # Its draws are its own.
    assert get(cache, 1, Hub()) is not get(cache, 1, Hub())


def test_what_is_no_attribute_keeps_its_first_value():
    cache, settings = TraceCache(), [1]

    def sampler(prompt, **options):
        return prompt + settings[0]

    first = get(cache, 1, sampler)
    settings[0] = 2
    assert get(cache, 1, sampler) is first


def test_another_version_drops_all_traces():
    cache = TraceCache()
    old = [weakref.ref(get(cache, 1, TopKSampler(k))) for k in (1, 2)]
    get(cache, 2, GreedySampler())
    gc.collect()
    assert [x() for x in old] == [None, None]
    assert len(cache) == 1


def test_a_sampler_for_each_request_does_not_fill_memory():
    cache = TraceCache()
    often = get(cache, 1, GreedySampler())
    for k in range(1, 50):
        get(cache, 1, TopKSampler(k))
        assert get(cache, 1, GreedySampler()) is often
    assert len(cache) == 8
