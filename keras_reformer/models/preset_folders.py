"""Folders of a model's configuration and weights: KerasHub's files."""

import datetime
import importlib.metadata
import inspect
import json
import pathlib

import keras

from keras_reformer.files import existing, read_json, reading, written_together
from keras_reformer.layers.static_state import sublayers_of

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_TASK, _TASK_WEIGHTS = "task.json", "task.weights.h5"
_METADATA = "metadata.json"


def read_folder(folder, load_weights, base, get_converter):
    """The model of a folder: that of its task, if it has one.

    Args:
        folder: `pathlib.Path`.
        load_weights: bool. Whether to load weights too.
        base: class of all models that may be made.
        get_converter: function that returns `keras_reformer.convert`, which
            reads the folders of transformers.

    Raises:
        ValueError: if files are missing, damaged or of another model.
    """
    path = existing(folder, [_CONFIG])
    config = read_json(path)
    if "registered_name" in config:
        return _read_keras(folder, load_weights, base)
    if config.get("model_type") == "reformer":
        model = get_converter().load_huggingface(folder)
        fresh = type(model).from_config
        return model if load_weights else fresh(model.get_config())
    raise ValueError(
        "The configuration is of no model that is known here. Expected "
        "`registered_name`, as `save_to_preset` writes it, or "
        "model_type='reformer'. Received: model_type="
        f"{config.get('model_type')!r}, path={str(path)!r}"
    )


def _read_keras(folder, load_weights, base):
    path = folder / (_TASK if (folder / _TASK).is_file() else _CONFIG)
    model = _make(path, base)
    if not load_weights:
        return model
    backbone = getattr(model, "backbone", model)
    _load(backbone, existing(folder, [_WEIGHTS]))
    if head_weights(model):
        path = existing(folder, [_TASK_WEIGHTS])
        _load(model, path, objects_to_skip=sublayers_of(backbone))
    return model


def _is_class(found, base):
    return inspect.isclass(found) and issubclass(found, base)


def _make(path, base):
    """The model of a serialized configuration."""
    content = read_json(path)
    name = content.get("registered_name")
    cls = keras.saving.get_registered_object(name)
    if not _is_class(cls, base):
        raise ValueError(
            "The configuration is of no class that is registered here. "
            "Expected one of keras_reformer's models, such as "
            "'keras_reformer>ReformerBackbone'. Received: registered_name="
            f"{name!r}, path={str(path)!r}"
        )
    with reading(path, f"a configuration of {cls.__name__}"):
        return cls.from_config(content["config"])


def _load(model, path, **options):
    with reading(path, "all weights of the configuration beside it"):
        model.load_weights(path, **options)


def head_weights(model):
    """A task's weights that are not the backbone's."""
    backbone = getattr(model, "backbone", model)
    known = {id(weight) for weight in backbone.weights}
    return [weight for weight in model.weights if id(weight) not in known]


def write_folder(model, folder):
    """Writes a model's preset, and removes the files of an earlier task.

    Args:
        model: a backbone, or a task with one.
        folder: path, which is made.
    """
    backbone = getattr(model, "backbone", model)
    with written_together(folder) as new:
        _write_json(new / _CONFIG, _serialized(backbone))
        _write_json(new / _METADATA, _metadata(model, backbone))
        _save(backbone, new / _WEIGHTS)
        if model is not backbone:
            _write_json(new / _TASK, _serialized(model))
        if head_weights(model):
            _save(model, new / _TASK_WEIGHTS, sublayers_of(backbone))
        written = {path.name for path in new.iterdir()}
    for name in {_TASK, _TASK_WEIGHTS} - written:
        (pathlib.Path(folder) / name).unlink(missing_ok=True)


def _save(model, path, skipped=()):
    """Saves weights, but for those of some layers and of the optimizer."""
    skipped = [*skipped, getattr(model, "optimizer", None)]
    keras.saving.save_weights(model, path, objects_to_skip=skipped)


def _serialized(model):
    return _without_builds(keras.saving.serialize_keras_object(model))


def _without_builds(config):
    """A config without what `from_config` does not need."""
    if isinstance(config, list):
        return [_without_builds(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        key: _without_builds(value)
        for key, value in config.items()
        if key not in ("build_config", "compile_config")
    }


def _metadata(model, backbone):
    now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    return {
        "keras_version": keras.__version__,
        "keras_reformer_version": importlib.metadata.version("keras-reformer"),
        "parameter_count": backbone.count_params(),
        "date_saved": now,
        "tasks": [] if model is backbone else [type(model).__name__],
    }


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
