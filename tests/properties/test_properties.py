"""Every public layer, model and converter on random arguments and arrays."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.properties import layers, models
from tests.properties.holds import assert_holds

CASES = layers.CASES | models.CASES
_SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def _run(subject, max_examples):
    @settings(max_examples=max_examples, **_SETTINGS)
    @given(CASES[subject]())
    def hold(case):
        assert_holds(case)

    hold()


@pytest.mark.parametrize("subject", CASES)
def test_finite_or_named(subject):
    _run(subject, 6)


@pytest.mark.slow
@pytest.mark.parametrize("subject", CASES)
def test_finite_or_named_in_many_examples(subject):
    _run(subject, 106)
