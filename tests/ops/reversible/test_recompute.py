import itertools

import pytest

from keras_reformer.ops.reversible.recompute import (
    SavedDecisions,
    save_for_backward,
)


def test_decisions_are_replayed_in_order():
    numbers = itertools.count()
    memory = SavedDecisions()
    with memory.record():
        made = [save_for_backward(lambda: next(numbers)) for _ in range(3)]
    with memory.replay():
        replayed = [save_for_backward(lambda: next(numbers)) for _ in range(3)]
    assert made == replayed == [0, 1, 2]


def test_without_a_memory_each_call_decides():
    numbers = itertools.count()
    assert [save_for_backward(lambda: next(numbers)) for _ in range(2)] == [
        0,
        1,
    ]


def test_an_outer_run_decides_for_those_inside_of_it():
    outer, inner = SavedDecisions(), SavedDecisions()
    with outer.record():
        save_for_backward(lambda: "outer")
        with inner.record():
            save_for_backward(lambda: "inner")
        save_for_backward(lambda: "outer again")
    assert outer.values == ["outer", "inner", "outer again"]
    assert inner.values == ["inner"]
    # The outer backward pass runs all of this again.
    with outer.replay():
        again = [save_for_backward(lambda: "anew")]
        with inner.record():
            again.append(save_for_backward(lambda: "anew"))
        again.append(save_for_backward(lambda: "anew"))
    assert again == outer.values


def test_a_replay_may_be_repeated():
    memory = SavedDecisions()
    with memory.record():
        save_for_backward(lambda: object())
    for _ in range(2):
        with memory.replay():
            assert save_for_backward(lambda: None) is memory.values[0]


def test_a_decision_that_was_never_made_is_an_error():
    memory = SavedDecisions()
    with memory.record():
        pass
    with memory.replay():
        with pytest.raises(RuntimeError, match="Received: 1 calls, 0 dec"):
            save_for_backward(lambda: 1)
