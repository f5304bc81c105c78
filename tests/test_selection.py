"""Which cases run: of products a covering array, and few in `--quick`."""

from itertools import combinations, product
from types import SimpleNamespace

import pytest

from tests.support.selection import (
    cases_by_test,
    covering,
    mark_what_is_covered,
    quick,
    quick_items,
)


@pytest.mark.parametrize("sizes", [(3,), (4, 4, 3), (4, 2, 7, 2)])
@pytest.mark.parametrize("strength", [1, 2, 3])
def test_every_combination_of_values_is_covered(sizes, strength):
    cases = list(product(*map(range, sizes)))
    chosen = covering(cases, strength)
    for axes in combinations(range(len(sizes)), min(strength, len(sizes))):
        shown = {tuple(cases[index][axis] for axis in axes) for index in chosen}
        assert shown == set(product(*(range(sizes[axis]) for axis in axes)))
    if strength < len(sizes):
        assert len(chosen) < len(cases)


def test_few_cases_are_chosen():
    assert len(covering(list(product(range(4), range(4), range(3))), 2)) <= 20
    assert len(covering(list(product(range(7), range(2))), 1)) == 7


def test_quick_runs_eager_cases_and_one_under_xla():
    cases = list(product("ab", range(2), ["eager", "graph", "xla"]))
    executions = [case[-1] for case in cases]
    chosen = [cases[index] for index in sorted(quick(executions, cases))]
    assert chosen == [("a", 0, "eager"), ("a", 0, "xla"), ("b", 1, "eager")]
    assert quick([None] * 4, [[number] for number in range(4)]) == {0, 1, 2, 3}


class Case:
    """As much of a test's case as a selection asks for."""

    def __init__(self, test, *marks, **parameters):
        self.nodeid = f"{test}{list(parameters.values())}"
        self.callspec = SimpleNamespace(params=parameters)
        self.marks = {mark.name: mark for mark in marks}

    def get_closest_marker(self, name):
        return self.marks.get(name)

    def add_marker(self, mark):
        self.marks[mark.name] = mark


def is_slow(case):
    return case.get_closest_marker("slow") is not None


def test_cases_beside_a_covering_array_are_slow():
    mark = pytest.mark.covering(1).mark
    cases = [Case("a", mark, x={}, y=number) for number in range(2)]
    cases += [Case("a", mark, x=[], y=number) for number in range(2)]
    others = [Case("b", x=number, y=0) for number in range(2)]
    for group in cases_by_test([*cases, *others]):
        mark_what_is_covered(group)
    assert [is_slow(case) for case in cases] == [False, True, True, False]
    assert not any(map(is_slow, others))


def test_quick_leaves_slow_cases_out():
    mark = pytest.mark.slow.mark
    test, slow = Case("a", x=1, how="xla"), Case("a", mark, x=2, how="eager")
    alone = object()
    assert quick_items([test, slow, alone]) == {test, alone}
