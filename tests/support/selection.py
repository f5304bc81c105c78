"""Which cases of a parametrised test run: covering arrays, not products."""

from collections.abc import Hashable, Sequence
from itertools import combinations

import pytest

from tests.support.executions import EXECUTIONS


def covering(cases: Sequence[Sequence[Hashable]], strength: int) -> set[int]:
    """Chooses the rows of a covering array.

    Args:
        cases: The values of all parameters, one sequence a case.
        strength: Every combination of values of this many parameters that
            occurs in `cases` occurs in a chosen one.

    Returns:
        Indices of the chosen cases. The choice is greedy, so close to the
        fewest, and depends on the order of the cases alone.
    """
    missing = [_combinations(case, strength) for case in cases]
    chosen = set()
    while any(missing):
        best = max(range(len(cases)), key=lambda index: len(missing[index]))
        chosen.add(best)
        shown = set(missing[best])
        missing = [each - shown for each in missing]
    return chosen


def _combinations(case, strength):
    places = combinations(enumerate(case), min(strength, len(case)))
    return set(places)


def cases_by_test(items):
    """Yields the cases of every parametrised test that are not slow."""
    tests = {}
    for item in items:
        if hasattr(item, "callspec") and not item.get_closest_marker("slow"):
            tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    yield from tests.values()


def mark_what_is_covered(cases):
    """Makes cases slow that the marker `covering` of their test leaves out."""
    marker = cases[0].get_closest_marker("covering")
    if marker is None:
        return
    chosen = covering([_values(case) for case in cases], *marker.args)
    for index, case in enumerate(cases):
        if index not in chosen:
            case.add_marker(pytest.mark.slow)


def quick_items(items):
    """The items that `pytest --quick` runs."""
    chosen = {item for item in items if not hasattr(item, "callspec")}
    for cases in cases_by_test(items):
        executions = [_execution_of(case.callspec.params) for case in cases]
        values = [_values(case) for case in cases]
        chosen.update(cases[index] for index in quick(executions, values))
    return chosen


def quick(executions, values) -> set[int]:
    """Chooses cases of one test: enough eager ones, and one under XLA.

    Args:
        executions: `"eager"`, `"graph"`, `"xla"` or None, one a case.
        values: What the parameters are, a sequence a case.

    Returns:
        Indices of cases: of those without an execution and of the eager
        ones as many as show every value once; and the first under XLA.
    """
    eager = [
        index
        for index, execution in enumerate(executions)
        if execution in (None, "eager")
    ]
    shown = covering([values[index] for index in eager], 1)
    chosen = {eager[index] for index in shown}
    if "xla" in executions:
        chosen.add(executions.index("xla"))
    return chosen


def _values(case):
    """Stands for values that may have no hash."""
    return [repr(value) for value in case.callspec.params.values()]


def _execution_of(parameters):
    told = [
        value
        for value in parameters.values()
        if isinstance(value, str) and value in EXECUTIONS
    ]
    return told[0] if told else None
