"""Export of SavedModels for TensorFlow Serving, and checks of them."""

from keras_reformer.export.metadata import runtime_versions as runtime_versions
from keras_reformer.export.saved_model import (
    export_saved_model as export_saved_model,
)
from keras_reformer.export.verify import (
    verify_saved_model as verify_saved_model,
)

__all__ = ["export_saved_model", "runtime_versions", "verify_saved_model"]
