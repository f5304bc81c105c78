"""Losses that are means over the rows of all replicas."""

import keras
import tensorflow as tf

from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.ops.replicas import fraction, sum_over_replicas

_MEANS = ("sum_over_batch_size", "mean")


class WeighsReplicas(ModelMixin):
    """Weighs replicas by their rows where Keras takes the mean of means.

    Replicas have unequal shares of a batch that they do not divide, and some
    may have none.
    """

    _loss_is_mean = True

    def make_train_function(self, force=False):
        self._look_at_loss()
        return super().make_train_function(force)

    def make_test_function(self, force=False):
        self._look_at_loss()
        return super().make_test_function(force)

    def _look_at_loss(self):
        # In a graph the config, with the optimizer's, cannot be had.
        if self.compiled and self.distribute_strategy.num_replicas_in_sync > 1:
            config = self.get_compile_config() or {}
            self._loss_is_mean = _are_means(config.get("loss"))

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The loss of a replica. See `keras.Model.compute_loss`.

        Keras sums the gradients over replicas. Its own mean of the values
        weighs them by rows already.
        """
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return loss
        if not self._loss_is_mean:
            return loss
        rows = tf.shape(keras.tree.flatten(y_pred)[0])[0]
        rows = tf.cast(rows, loss.dtype)
        weight = rows / fraction() / sum_over_replicas(rows)
        return loss * weight + tf.stop_gradient(loss * (1 - weight))


def _are_means(config):
    """Whether all losses of a config are means over rows."""
    if isinstance(config, dict):
        own = config.get("reduction", _MEANS[0])
        return own in _MEANS and all(map(_are_means, config.values()))
    if isinstance(config, list | tuple):
        return all(map(_are_means, config))
    return True
