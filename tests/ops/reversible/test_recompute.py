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


def test_a_run_inside_of_another_repeats_its_decisions():
    """The outer one's backward pass runs the inner forward pass again."""
    numbers, values = itertools.count(), []
    outer, inner = SavedDecisions(), SavedDecisions()

    def run():
        save_for_backward(lambda: next(numbers))
        with inner.record():
            save_for_backward(lambda: next(numbers))
        # What the inner backward pass asks for is the inner run's alone.
        with inner.replay():
            values.append(save_for_backward(lambda: next(numbers)))
        values.append(save_for_backward(lambda: next(numbers)))

    with outer.record():
        run()
    with outer.replay():
        run()
    assert values == [1, 2, 1, 2]
    assert outer.values == [0, 1, 2]
    assert inner.values == [1]


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
