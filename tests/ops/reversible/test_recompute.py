import itertools

import pytest

from keras_reformer.ops.reversible.recompute import Memory, remember


def test_decisions_are_replayed_in_order():
    numbers = itertools.count()
    memory = Memory()
    with memory.record():
        made = [remember(lambda: next(numbers)) for _ in range(3)]
    with memory.replay():
        replayed = [remember(lambda: next(numbers)) for _ in range(3)]
    assert made == replayed == [0, 1, 2]


def test_without_a_memory_each_call_decides():
    numbers = itertools.count()
    assert [remember(lambda: next(numbers)) for _ in range(2)] == [0, 1]


def test_memories_nest_and_do_not_mix():
    outer, inner = Memory(), Memory()
    with outer.record():
        remember(lambda: "outer")
        with inner.record():
            remember(lambda: "inner")
        remember(lambda: "outer again")
    assert outer.values == ["outer", "outer again"]
    assert inner.values == ["inner"]


def test_a_replay_may_be_repeated():
    memory = Memory()
    with memory.record():
        remember(lambda: object())
    for _ in range(2):
        with memory.replay():
            assert remember(lambda: None) is memory.values[0]


def test_a_decision_that_was_never_made_is_an_error():
    memory = Memory()
    with memory.record():
        pass
    with memory.replay():
        with pytest.raises(RuntimeError, match="Received: 1 calls, 0 dec"):
            remember(lambda: 1)
