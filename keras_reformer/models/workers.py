"""`fit` and `evaluate` on several workers, each a process of its own.

Keras 3 accepts a `tf.distribute.MultiWorkerMirroredStrategy`, but its `fit`
fails: it reduces a dict of batches where the strategy can reduce one value
only, and takes the mean of a step's scalar results over their first axis.
Under a `MirroredStrategy` the former adds up batches of unequal rows. Both use
`Model.distribute_strategy`, which a model may override.
"""

import functools

import keras
import tensorflow as tf

from keras_reformer.layers import checks
from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.models.rendezvous import meet


def multi_worker_strategy(timeout=600, cluster_resolver=None):
    """Makes a strategy of several workers, once all of them have come.

    Each worker is a process that runs the same program with its own
    `TF_CONFIG`. Models of this package that are made in the strategy's scope
    train together with `fit`: each worker takes its share of each batch, and
    all of them end with the same weights. TensorFlow's own constructor waits
    an hour for a worker that never comes, without a word.

    Args:
        timeout: int. Seconds to wait for all workers; after ten of them a
            line on stderr says for whom. Defaults to `600`.
        cluster_resolver: `tf.distribute.cluster_resolver.ClusterResolver`.
            Defaults to what the environment variable `TF_CONFIG` says.

    Returns:
        `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        TimeoutError: if a worker does not come in time.
        ValueError: if the cluster has no workers, or this process is none.

    Example:

    >>> from keras_reformer.models import multi_worker_strategy
    >>> with multi_worker_strategy().scope():
    ...     model = keras_reformer.ReformerCausalLM(258, 1, 2, 8, 8, 64)
    """
    checks.positive_int("timeout", timeout)
    resolver = cluster_resolver
    if resolver is None:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    addresses, index = _workers(resolver)
    if len(addresses) > 1:
        meet(addresses, index, timeout)
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def _workers(resolver):
    """Addresses of all workers, the chief's first, and this one's index."""
    cluster = resolver.cluster_spec().as_dict()
    jobs = [job for job in ("chief", "worker") if job in cluster]
    places = [(job, i) for job in jobs for i in range(len(cluster[job]))]
    own = (resolver.task_type, resolver.task_id)
    if cluster and own not in places:
        raise ValueError(
            "A process of this strategy must be a chief or a worker of its "
            f"cluster. Received: task={own}, cluster={cluster}"
        )
    addresses = [cluster[job][i] for job, i in places]
    return addresses, places.index(own) if cluster else 0


class TrainsOnWorkers(ModelMixin):
    """Trains and evaluates on all workers of a strategy.

    `predict` runs on each worker alone, on all of the data that it is given:
    nothing is exchanged, and one worker may predict without the others.
    """

    _predicts_alone = False

    @property
    def distribute_strategy(self):
        """The strategy in whose scope the model was made."""
        strategy = super().distribute_strategy
        if isinstance(strategy, tf.distribute.MirroredStrategy):
            return _Replicas(strategy)
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return strategy
        return _Alone(strategy) if self._predicts_alone else _Workers(strategy)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args, **kwargs):
        with self._alone():
            return super().predict(*args, **kwargs)

    @functools.wraps(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args, **kwargs):
        with self._alone():
            return super().predict_on_batch(*args, **kwargs)

    def make_train_function(self, force=False):
        self._check_xla()
        return super().make_train_function(force)

    def make_test_function(self, force=False):
        self._check_xla()
        return super().make_test_function(force)

    def make_predict_function(self, force=False):
        self._check_xla()
        return super().make_predict_function(force)

    def _check_xla(self):
        """Raises a `ValueError` for a step that TensorFlow cannot compile."""
        strategy = self.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        if self.jit_compile and replicas > 1 and not tpu:
            raise ValueError(
                "Keras compiles the step of all replicas as one XLA program, "
                "and TensorFlow has none for several devices or workers. "
                "Expected compile(jit_compile=False) under a strategy of "
                "several replicas. Received: jit_compile=True, "
                f"num_replicas_in_sync={replicas}"
            )

    def _alone(self):
        return _Setting(self, "_predicts_alone", True)


class _Setting:
    """A context in which an attribute has another value."""

    def __init__(self, owner, name, value):
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self):
        self._before = getattr(self._owner, self._name)
        setattr(self._owner, self._name, self._value)

    def __exit__(self, *_):
        setattr(self._owner, self._name, self._before)


class _Replicas:
    """A strategy, but for how Keras learns the shape of a first batch."""

    def __init__(self, strategy):
        self._strategy = strategy

    def __getattr__(self, name):
        return getattr(self._strategy, name)

    def reduce(self, reduce_op, value, axis):
        """The first replica's batch; those of others may have fewer rows."""
        del reduce_op, axis
        return keras.tree.map_structure(
            lambda part: self._strategy.experimental_local_results(part)[0],
            value,
        )


class _Workers(_Replicas):
    """A strategy of several workers, as Keras uses one of a single process."""

    def run(self, step, args=(), kwargs=None, options=None):
        """Runs a step, and means its results over the replicas of all."""
        results = self._strategy.run(step, args, kwargs, options)
        return keras.tree.map_structure(
            lambda value: self._strategy.reduce("MEAN", value, axis=None),
            results,
        )


class _Alone(_Replicas):
    """A strategy of several workers, of which one does all there is to do."""

    num_replicas_in_sync = 1

    def run(self, step, args=(), kwargs=None, options=None):
        """Calls a step."""
        del options
        return step(*args, **(kwargs or {}))

    def experimental_distribute_dataset(self, dataset):
        """Returns the dataset whole."""
        return dataset
