"""SavedModels with named signatures, in the layout of TensorFlow Serving."""

import itertools
import os
import tempfile
from collections.abc import Sequence

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_reformer.export import endpoints, warmup
from keras_reformer.export.compact import shorten_names
from keras_reformer.export.metadata import write_metadata
from keras_reformer.generation import Sampler

_VARIABLES = ("variables", "trainable_variables", "non_trainable_variables")
# Length of warm-up requests without length buckets.
_WARM_UP_LENGTH = 64


def export_saved_model(
    model: keras.Model,
    path: str,
    metadata: dict | None = None,
    *,
    length_buckets: Sequence[int] | None = None,
    jit_compile: bool = False,
    trainable: bool = False,
    sampler: str | Sampler = "top_p",
    stop_token_ids: Sequence[int] | None = None,
    warm_up_batch_sizes: Sequence[int] = (1,),
) -> str:
    """Exports a model in the folder layout of TensorFlow Serving.

    Batch and length of every request are free. `token_ids` and `labels` are
    int32 of shape `(batch, length)`, `lengths` int32 of shape `(batch,)`:
    how many tokens of each row are valid. The signatures:

    - `serve`, also `serving_default`: `token_ids` to `logits`, to `start` and
      `end` of a `ReformerQuestionAnswering`, or to `hidden_states` of a
      `ReformerBackbone`. All are float32.
    - `serve_padded`: the same of `token_ids` and `lengths`, of models that
      take a padding mask.
    - `score`, of language models: `token_ids` and `lengths` to
      `log_likelihood`, float32 `(batch,)` in nats, and `num_tokens`, int32
      `(batch,)`: how many tokens it is the sum of. Logits are made in chunks.
      A `ReformerCausalLM` scores each token but the first. A
      `ReformerMaskedLM` takes `labels` too and scores where they are not -1.
    - `generate`, of a `ReformerCausalLM`: prompts `token_ids` and `lengths`,
      with each row's `max_length` (prompt included), `seed` and
      `temperature`, all `(batch,)`, to the texts' `token_ids` and `lengths`.
      The whole loop is inside the graph, and decodes from a cache. A row's
      text does not depend on the other rows.
    - Those of a `ReformerSeq2Seq` take two sequences, `encoder_token_ids` and
      `decoder_token_ids`, and in place of `lengths` `encoder_lengths` and
      `decoder_lengths`. `generate` decodes a text for each source, from the
      beginning given.
    - `train`, on request: what `score` takes to `loss`, or what
      `serve_padded` takes and gives, in training mode. It draws dropout
      masks and rotations anew and has gradients after loading.

    A request that no model can answer (empty, too long, ids or lengths out of
    range, shapes that do not fit) fails with INVALID_ARGUMENT and a sentence.
    A `metadata.json` beside it holds configuration, versions and signatures;
    `assets.extra/tf_serving_warmup_requests` is what a server warms up with.

    What is loaded takes its inputs by these names, or in this order. Tables
    and vocabulary files of a model's layers are exported with it.

    Args:
        model: A task model, a `ReformerBackbone`, or another model of token
            ids to logits. One whose `keras.Input` is of strings, as with a
            lookup layer in front, has an input `text` of that shape.
        path: str. The folder of this model's versions. The new one gets the
            next free integer; earlier ones stay as they are.
        metadata: dict. More to write to `metadata.json`.
        length_buckets: increasing ints. Requests are padded to the next one,
            so that no more than so many lengths are ever computed; longer
            requests are refused. Defaults to None: lengths as they come.
        jit_compile: bool. Whether XLA compiles the model, once for each shape
            it meets; combine it with `length_buckets`. Such an export runs
            only on servers that were built with XLA. Defaults to `False`.
        trainable: bool. Whether to add `train` and to keep gradients, which
            make the files larger and slower to write and to load. Without it
            what is loaded has no gradients. Defaults to `False`.
        sampler: of `generate`, as in `ReformerCausalLM.generate`. Defaults to
            `"top_p"`.
        stop_token_ids: of `generate`: ids that end a text.
        warm_up_batch_sizes: ints. Rows of the warm-up requests; there is one
            for each signature, bucket and number of rows.

    Returns:
        version_path: str. The folder written, `path/VERSION`.

    Raises:
        ValueError: if `path` is a file, or if buckets are not increasing,
            longer than the model's longest input, or of no use to a model
            that takes no padding mask, or if the model uses a table of
            TensorFlow that none of its layers holds.
        OSError: if it cannot be written; then there is no new version.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential(
    ...     [keras.Input((None,), dtype="int32"), keras.layers.Embedding(11, 7)]
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_reformer.export_saved_model(model, folder)
    ...     loaded = tf.saved_model.load(path)
    ...     loaded.serve(tf.constant([[1, 2, 3]]))["logits"].shape
    TensorShape([1, 3, 7])
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(
            "`path` must be a folder or not exist yet, and it is a file. "
            f"Received: path={path!r}"
        )
    limits = endpoints.limits_of(model)
    buckets = _checked_buckets(model, length_buckets, limits)
    if buckets:
        limits = limits._replace(max_length=buckets[-1])
    sampling = endpoints.Sampling(sampler, tuple(stop_token_ids or ()))
    found = endpoints.endpoints(model, trainable, sampling)
    functions = {
        endpoint.name: endpoints.serving_function(
            endpoint, limits, buckets, jit_compile
        )
        for endpoint in found
    }
    lengths = buckets or (min(_WARM_UP_LENGTH, limits.max_length or 1),)
    shapes = list(itertools.product(warm_up_batch_sizes, lengths))
    name = os.path.basename(os.path.abspath(path))
    os.makedirs(path, exist_ok=True)
    # A server that polls `path` ignores names other than integers, so it
    # never loads an incomplete version.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path) as folder:
        written = os.path.join(folder, "version")
        _write(model, functions, written, gradients=trainable)
        warmup.write(written, name, _examples(found, limits, shapes))
        serving = {
            "signatures": _signatures(written, functions),
            **limits._asdict(),
            "length_buckets": buckets,
            "jit_compile": jit_compile,
        }
        write_metadata(written, model, {**serving, **(metadata or {})})
        return _move_to_next_version(written, path)


def _checked_buckets(model, length_buckets, limits) -> tuple[int, ...]:
    if length_buckets is None:
        return ()
    buckets = tuple(int(length) for length in length_buckets)
    rising = all(a < b for a, b in zip((0, *buckets), buckets, strict=False))
    if not buckets or not rising:
        raise ValueError(
            "Length buckets must be positive and increasing. Received: "
            f"length_buckets={length_buckets}"
        )
    if not endpoints.takes_mask(model):
        raise ValueError(
            "Requests can be padded for models that take a padding mask of "
            "one sequence only. Expected a model of this package other than "
            "an encoder-decoder. Received: "
            f"length_buckets={length_buckets}, model={model.name}"
        )
    if buckets[-1] > limits.max_length:
        raise ValueError(
            "Length buckets must be no longer than what the model takes. "
            f"Expected at most {limits.max_length}. Received: "
            f"length_buckets={length_buckets}"
        )
    return buckets


def _examples(found, limits, shapes):
    return [
        (endpoint.name, endpoints.example(endpoint, limits, rows, length))
        for endpoint in found
        if endpoint.warm
        for rows, length in shapes
    ]


def _write(model, functions, folder, gradients):
    root = tf.train.Checkpoint(
        **{
            kind: [variable.value for variable in getattr(model, kind)]
            for kind in _VARIABLES
        },
        resources=_resources(model),
    )
    for name, function in functions.items():
        setattr(root, name, function)
    # Written out, custom gradients make a file 2.5 times as large and take
    # eight times as long.
    options = tf.saved_model.SaveOptions(
        experimental_custom_gradients=gradients
    )
    default = next(iter(functions.values()))
    signatures = {"serving_default": default, **functions}
    try:
        tf.saved_model.save(root, folder, signatures, options)
    except tf.errors.OpError as error:
        # Of the file system: no room, say.
        raise OSError(
            f"The model could not be exported: {error.message}"
        ) from error
    except AssertionError as error:
        raise ValueError(
            "The model uses a table or variable of TensorFlow that none of its "
            "layers holds. Expected them as attributes of layers. Received: "
            f"model={model.name}"
        ) from error
    # Gradients refer to operations by name.
    if not gradients:
        shorten_names(folder)


def _resources(model) -> list:
    """TensorFlow variables and tables in a model's layers.

    Keras tracks them, but they are not among `model.variables`.
    """
    kinds = tf.Variable, tf.saved_model.experimental.TrackableResource
    found = tf.train.TrackableView(model).descendants()
    layers = [each for each in found if isinstance(each, keras.Layer)]
    found += [x for layer in layers for x in _contents(vars(layer))]
    return [each for each in found if isinstance(each, kinds)]


def _contents(value) -> list:
    """The elements of lists and dicts, which TensorFlow does not track."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return [value]
    return [x for each in value for x in _contents(each)]


def _signatures(folder, names) -> dict:
    """Names, dtypes and shapes of the signatures' inputs and outputs."""
    model = saved_model_pb2.SavedModel()
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        model.ParseFromString(file.read())
    definitions = model.meta_graphs[0].signature_def
    return {
        name: {
            "inputs": _describe(definitions[name].inputs),
            "outputs": _describe(definitions[name].outputs),
        }
        for name in names
    }


def _describe(tensors) -> dict:
    return {
        name: {
            "dtype": tf.as_dtype(tensors[name].dtype).name,
            "shape": tf.TensorShape(tensors[name].tensor_shape).as_list(),
        }
        for name in sorted(tensors)
    }


def _move_to_next_version(written, path):
    taken = [int(name) for name in os.listdir(path) if name.isdecimal()]
    version_path = os.path.join(path, str(max(taken, default=0) + 1))
    os.rename(written, version_path)
    return version_path
