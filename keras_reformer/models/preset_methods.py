"""KerasHub's verbs for presets, as methods of models."""

from typing import Any

from keras_reformer.files import find_folder
from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.models.preset_changes import (
    backbone_of,
    split_arguments,
    with_changes,
)
from keras_reformer.models.preset_folders import read_folder, write_folder
from keras_reformer.models.presets import PRESETS, presets_for, registered


class _PresetsOfClass:
    """A property of the class: the presets it can be made from."""

    def __get__(self, instance, owner):
        return presets_for(owner)


class HasPresets(ModelMixin):
    """A model that is made from a preset, and saved to one."""

    presets = _PresetsOfClass()
    # What `set_converter` was told.
    _get_converter: Any

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """Makes a model of this class; see `keras_reformer.from_preset`.

        A folder of another task, or of a backbone, gives the backbone. The
        head is drawn then, as it is where an argument, such as another
        `num_classes`, changes its weights.

        Args:
            preset: name, path of a folder, or `"hf://owner/name"`.
            load_weights: bool. Whether to load a folder's weights. Defaults
                to `True`.
            **kwargs: arguments that replace those of the preset.
        """
        if isinstance(preset, str) and preset in PRESETS:
            return _make_named(cls, preset, kwargs)
        folder = find_folder(preset, list(presets_for(cls) or PRESETS))
        model = read_folder(
            folder, load_weights, HasPresets, cls._get_converter
        )
        return _as_class(model, cls, kwargs, load_weights)

    def save_to_preset(self, preset_dir):
        """Saves configuration and weights as KerasHub does.

        `config.json`, `model.weights.h5` and `metadata.json` are the
        backbone's; a task adds `task.json` and, for its head,
        `task.weights.h5`. What `compile` sets is not saved.

        Args:
            preset_dir: path of a folder, which is made. A preset in it stays
                whole until the new one is written.
        """
        write_folder(self, preset_dir)

    def export_to_transformers(self, path):
        """Saves the model as transformers loads it, if it has such a one.

        See `keras_reformer.convert.save_huggingface`; needs the package
        `safetensors`.

        Args:
            path: path of a folder, which is made.
        """
        self._get_converter().save_huggingface(self, path)


def set_converter(get):
    """Says what reads and writes the folders of transformers.

    Args:
        get: function that returns `keras_reformer.convert`, which is made of
            models, so that they do not import it.
    """
    HasPresets._get_converter = staticmethod(get)


def _make_named(cls, name, changes):
    """A model of a configuration that has a name."""
    preset = PRESETS[name]
    made = registered(preset.model)
    if issubclass(made, cls):
        cls = made
    if not preset.is_for(cls):
        raise ValueError(
            "The preset is for models of another class. Expected one of "
            f"{list(presets_for(cls) or PRESETS)}, or the class "
            f"{preset.model}. Received: preset={name!r}, class={cls.__name__}"
        )
    return cls(**{**preset.arguments, **changes})


def _as_class(model, cls, changes, keep_weights):
    """A model that was read, or its backbone in a model of another class."""
    if isinstance(model, cls):
        return with_changes(model, changes, keep_weights)
    backbone = backbone_of(model)
    taken = getattr(cls, "_backbone_class", cls)
    if not isinstance(backbone, taken):
        raise ValueError(
            "The preset's backbone is of another class. Expected "
            f"{taken.__name__}. Received: {type(backbone).__name__}"
        )
    if isinstance(backbone, cls):
        return with_changes(backbone, changes, keep_weights)
    own, others = split_arguments(cls, changes)
    backbone = with_changes(backbone, others, keep_weights)
    return cls(backbone=backbone, **own)
