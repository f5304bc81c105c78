"""Steps that are traced again when a model's layers have changed."""

import functools

from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.layers.trace_version import TraceVersion


class RetracesSteps(ModelMixin):
    """Keeps traces of a model from answering for settings of before.

    Keras traces the steps of `fit`, `evaluate` and `predict` once. Here they
    are traced again once `trace_version` has changed.
    """

    @property
    def trace_version(self):
        """Int that changes with all that a trace takes for constant.

        A setting of a layer, its sublayers, or its set of variables; not the
        variables' values. Whoever keeps a trace of the model drops it when
        this has changed.
        """
        return self._trace_version.of(self)

    @functools.cached_property
    def _trace_version(self):
        return TraceVersion()

    def make_train_function(self, force=False):
        return super().make_train_function(force or self._is_old("train"))

    def make_test_function(self, force=False):
        return super().make_test_function(force or self._is_old("test"))

    def make_predict_function(self, force=False):
        return super().make_predict_function(force or self._is_old("predict"))

    def _is_old(self, step):
        """Whether a step was traced at another version than the present."""
        version = self.trace_version
        traced_at = self._versions_of_steps.get(step, version)
        self._versions_of_steps[step] = version
        return version != traced_at

    @functools.cached_property
    def _versions_of_steps(self):
        return {}
