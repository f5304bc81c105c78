"""Steps that are traced again when a model's layers have changed."""

import functools

from keras_reformer.layers.static_state import StaticState


class RetracesSteps:
    """Keeps `fit`, `evaluate` and `predict` from answering for old settings.

    Keras traces a model's steps once. Here they are traced again once a
    setting of a layer, its sublayers or its set of variables has changed.
    """

    def make_train_function(self, force=False):
        return super().make_train_function(force or self._changed("train"))

    def make_test_function(self, force=False):
        return super().make_test_function(force or self._changed("test"))

    def make_predict_function(self, force=False):
        return super().make_predict_function(force or self._changed("predict"))

    def _changed(self, step):
        """Whether layers are not what they were when this was last asked."""
        now = StaticState(self)
        before = self._states_of_steps.get(step, now)
        self._states_of_steps[step] = now
        return now != before

    @functools.cached_property
    def _states_of_steps(self):
        return {}
