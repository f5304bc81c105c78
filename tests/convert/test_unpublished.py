"""What the published model has not is refused, not left out of its files."""

import pytest

from keras_reformer import convert
from tests.support import tiny

OPTIONS = {**tiny.PUBLISHED, "causal": True}


@pytest.mark.parametrize(
    "option",
    [
        {"num_global_tokens": 3},
        {"num_key_value_heads": 1},
        {"duplicates": "discount"},
    ],
    ids=str,
)
def test_variants_are_refused(option):
    model = tiny.make_model(**{**OPTIONS, **option})
    with pytest.raises(ValueError, match="no such variant"):
        convert.to_huggingface(model)
