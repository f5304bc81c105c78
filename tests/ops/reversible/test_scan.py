"""How often the shortest period of a stack's blocks is repeated."""

import pytest

from keras_reformer.ops.reversible import scan
from keras_reformer.ops.reversible.coupling import PureFunction


@pytest.mark.parametrize(
    "names, count",
    [
        ("ab", 1),
        ("abab", 2),
        ("ababab", 3),
        ("aaaaaa", 3),
        ("abcdabcd", 2),
        ("abcabcabc", 3),
        ("ababcd", 1),
        ("abababa", 1),
        ("", 1),
    ],
)
def test_scan_steps(names, count):
    branches = [PureFunction(None, [], [], signature=name) for name in names]
    assert scan.num_scan_steps(branches) == count


def test_unknown_signatures_are_not_scanned():
    assert scan.num_scan_steps([PureFunction(None, [], [])] * 4) == 1
