"""What we export in transformers itself, where it is installed."""

import numpy as np
import pytest

from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerQuestionAnswering,
)
from tests.support import tiny

torch = pytest.importorskip("torch", exc_type=ImportError)
transformers = pytest.importorskip("transformers", exc_type=ImportError)
reformer = pytest.importorskip("transformers.models.reformer")

# Local layers: what LSH layers hash with is in no state dict.
SIZES = {
    **tiny.SIZES,
    **tiny.SMALLEST,
    "scope": "chunk",
    "wrap": True,
    "activation": "relu",
    "epsilon": 1e-12,
}
CASES = {
    "ReformerModel": lambda: ReformerBackbone(**SIZES),
    "ReformerModelWithLMHead": lambda: ReformerCausalLM(**SIZES),
    "ReformerForMaskedLM": lambda: ReformerMaskedLM(**SIZES),
    "ReformerForSequenceClassification": lambda: ReformerClassifier(
        num_classes=3, **SIZES
    ),
    "ReformerForQuestionAnswering": lambda: ReformerQuestionAnswering(**SIZES),
}


@pytest.mark.parametrize("name", CASES)
def test_exports_give_the_same_numbers(name, tmp_path):
    model = CASES[name]()
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    model.export_to_transformers(tmp_path)
    kind = getattr(transformers, name)
    loaded, notes = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["mismatched_keys"]
    ids = tiny.make_ids(2, 24)
    with torch.no_grad():
        theirs = loaded.eval()(torch.tensor(ids).long())
    if name == "ReformerForQuestionAnswering":
        ours = model(ids)
        pairs = [
            (theirs.start_logits, ours["start"]),
            (theirs.end_logits, ours["end"]),
        ]
    else:
        pairs = [(theirs[0], model(ids))]
    for found, expected in pairs:
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
