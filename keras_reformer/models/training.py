"""Losses and steps that Keras lets a model override.

A language model's logits are its largest tensor, so the steps here make no
more than a few million at a time: the cross-entropy and the metrics that
follow from it run over chunks of positions. A user's own loss, or a metric
that needs logits, gets them, with a warning.
"""

import warnings

import keras
import tensorflow as tf

from keras_reformer.layers import checks
from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.layers.stateless import pure_outputs
from keras_reformer.metrics import BitsPerByte
from keras_reformer.models.targets import targets
from keras_reformer.ops.losses import chunked_cross_entropy
from keras_reformer.ops.replicas import (
    fraction,
    loss_for_keras,
    sum_over_replicas,
)


class ChunkedCrossEntropy(ModelMixin):
    """Training and evaluation of a `backbone` and a `head` on token labels.

    The loss of a batch is the sum of weighted cross-entropies over the sum of
    weights, both of all replicas, plus what layers add. A position's weight
    is its sample weight times its validity, and zero for a negative label.
    Without labels they are the inputs shifted by one, and the last position
    of a row, or of each document that `segment_ids` tell of, has weight zero.
    """

    _labels_are_tokens = True
    _has_own_loss = True

    def compile(
        self,
        optimizer="adam",
        loss=None,
        metrics=None,
        weighted_metrics=None,
        label_smoothing=0.0,
        **kwargs,
    ):
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: Optimizer or its name. Defaults to `"adam"`.
            loss: None for the model's own cross-entropy on integer labels,
                computed in chunks. Another loss gets full logits.
            metrics: list. `"accuracy"` and `BitsPerByte` are computed in
                chunks; others get full logits. All are weighted, so that
                padding and positions without a label do not count.
            weighted_metrics: list. Further metrics, treated alike.
            label_smoothing: float in `[0, 1)`. Share of the labels' weight
                that the model's own loss spreads over the vocabulary; bits
                per byte are those of the labels alone. Defaults to `0.0`.
            **kwargs: what `keras.Model.compile` takes.
        """
        given = [
            metric
            for metric in keras.tree.flatten([metrics, weighted_metrics])
            if metric is not None
        ]
        chosen = _metrics_in_chunks(given) if loss is None else None
        self._has_own_loss = loss is None
        self._results = None if chosen is None else _Results(chosen)
        self._label_smoothing = checks.rate("label_smoothing", label_smoothing)
        if label_smoothing and self._results is None:
            raise ValueError(
                "Labels are smoothed in the model's own loss. Expected "
                "loss=None, and no metrics but accuracy and bits per byte. "
                f"Received: label_smoothing={label_smoothing}, loss={loss}, "
                f"metrics={given}"
            )
        if self._results is None:
            warnings.warn(
                "A loss or metric other than cross-entropy, accuracy and "
                "bits per byte gets the logits of whole sequences, which take "
                "`batch * length * vocabulary_size` floats.",
                stacklevel=2,
            )
        super().compile(
            optimizer=optimizer, loss=loss, weighted_metrics=given, **kwargs
        )

    def get_compile_config(self):
        config = super().get_compile_config()
        if not config or not self._label_smoothing:
            # A clone is a plain model, whose `compile` has no such argument.
            return config
        return {**config, "label_smoothing": self._label_smoothing}

    @property
    def metrics(self):
        """The loss and the metrics of `compile`."""
        results = getattr(self, "_results", None)
        return super().metrics if results is None else results.all

    def train_step(self, data):
        x, labels, weights = self._unpack(data)
        if self._results is None:
            return super().train_step((x, labels, weights))
        with tf.GradientTape() as tape:
            loss = self._loss_and_metrics(x, labels, weights, training=True)
            share = loss * fraction()
            scaled = self.optimizer.scale_loss(share)
        variables = self.trainable_weights
        if variables:
            gradients = tape.gradient(scaled, variables)
            pairs = zip(gradients, variables, strict=True)
            self.optimizer.apply_gradients(pairs)
        return self.get_metrics_result()

    def test_step(self, data):
        x, labels, weights = self._unpack(data)
        if self._results is None:
            return super().test_step((x, labels, weights))
        self._loss_and_metrics(x, labels, weights, training=False)
        return self.get_metrics_result()

    def replica_loss(self, data, training):
        x, labels, weights = self._unpack(data)
        if self._results is None:
            return super().replica_loss((x, labels, weights), training)
        loss = self._loss_and_metrics(x, labels, weights, training)
        return loss * fraction()

    def build_metrics(self, data):
        if self._results is None:
            super().build_metrics(self._unpack(data))

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The loss of logits. See `keras.Model.compute_loss`."""
        _, y, sample_weight = self._unpack((x, y, sample_weight))
        if not self._has_own_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        losses = keras.ops.sparse_categorical_crossentropy(
            y, y_pred, from_logits=True
        )
        weights = tf.cast(sample_weight, losses.dtype)
        loss = _mean(losses, weights, _weight_of_part(weights))
        loss += self._added_loss(losses.dtype)
        return loss_for_keras(loss * fraction())

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Metrics that need logits. See `keras.Model.compute_metrics`."""
        _, y, sample_weight = self._unpack((x, y, sample_weight))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _unpack(self, data):
        """Complete inputs, labels, and the weight of each position."""
        x, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        x = self.complete_inputs(x)
        return x, *self._targets(x, labels, weights)

    def _targets(self, inputs, labels, weights):
        return targets(
            inputs,
            labels,
            weights,
            self.backbone.vocabulary_size,
            one_hot=not self._has_own_loss,
        )

    def log_likelihood(self, inputs, labels=None, sample_weight=None):
        """Scores each row of tokens, without the logits of a whole sequence.

        Args:
            inputs: as the model takes them.
            labels: Integer tensor of shape `(batch, length)`; negative ones
                have no weight. Defaults to what `fit` takes without labels.
            sample_weight: Tensor of shape `(batch, length)` or `(batch,)`.
                Positions of weight zero are not scored.

        Returns:
            log_likelihood: float tensor of shape `(batch,)`, in nats: the sum
                of the weighted log-probabilities of the labels.
            weight: float tensor of shape `(batch,)`: the sum of the weights.
        """
        x, labels, weights = self._unpack((inputs, labels, sample_weight))
        _, nats, _ = self._cross_entropy(x, labels, training=False)
        weights = tf.cast(weights, nats.dtype)
        total = tf.reduce_sum(weights, axis=1)
        return -tf.reduce_sum(nats * weights, axis=1), total

    def training_loss(self, inputs, labels=None, sample_weight=None):
        """The loss of a training step, without its metrics.

        Args:
            inputs: as the model takes them.
            labels: Integer tensor of shape `(batch, length)`; negative ones
                have no weight. Defaults to what `fit` takes without labels.
            sample_weight: Tensor of shape `(batch, length)` or `(batch,)`.

        Returns:
            float tensor: the mean cross-entropy, plus what layers add.
        """
        x, labels, weights = self._unpack((inputs, labels, sample_weight))
        losses, _, _ = self._cross_entropy(x, labels, training=True)
        weights = tf.cast(weights, losses.dtype)
        loss = _mean(losses, weights, tf.reduce_sum(weights))
        return loss + self._added_loss(losses.dtype)

    def _loss_and_metrics(self, x, labels, weights, training):
        """A loss whose mean over replicas, by their fractions, is the batch's;
        updates the metrics."""
        losses, nats, correct = self._cross_entropy(
            x, labels, training, self._label_smoothing
        )
        weights = tf.cast(weights, losses.dtype)
        weight = _weight_of_part(weights)
        loss = _mean(losses, weights, weight) + self._added_loss(losses.dtype)
        self._results.update(loss, weight, nats, correct, weights)
        return loss

    def _cross_entropy(self, x, labels, training, label_smoothing=0.0):
        """Loss, nats and accuracy of each position, computed in chunks."""
        hidden = self.backbone.before_normalization(x, training=training)
        normalization = self.backbone.normalization
        function, head_weights = pure_outputs(
            [normalization, self.head], lambda x: self.head(normalization(x))
        )
        return chunked_cross_entropy(
            lambda chunk, values: function(values, chunk),
            hidden,
            head_weights,
            labels,
            self.backbone.vocabulary_size,
            label_smoothing,
        )

    def _added_loss(self, dtype):
        """The sum of losses that layers add."""
        total = tf.zeros((), dtype)
        for loss in self.losses:
            total += tf.reduce_sum(tf.cast(loss, dtype))
        return total


def _weight_of_part(weights):
    """The weight of all replicas' positions, times this one's fraction."""
    return sum_over_replicas(tf.reduce_sum(weights)) * fraction()


def _mean(losses, weights, total):
    return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), total)


class _Results:
    """The metrics that are computed from each position's cross-entropy.

    Not a Keras object, so that the model does not track metrics that the next
    `compile` replaces.
    """

    def __init__(self, metrics):
        self.loss = keras.metrics.Mean(name="loss")
        self.all = [self.loss, *metrics]

    def update(self, loss, weight, nats, correct, weights):
        self.loss.update_state(loss, weight)
        for metric in self.all[1:]:
            if isinstance(metric, BitsPerByte):
                metric.update_from_nats(nats, weights)
            else:
                metric.update_state(correct, weights)


def _metrics_in_chunks(metrics):
    """Metrics that need no logits, or None if one does."""
    found = []
    for metric in metrics:
        if metric == "accuracy":
            found.append(keras.metrics.Mean(name="accuracy"))
        elif isinstance(metric, BitsPerByte):
            found.append(metric)
        else:
            return None
    return found
