from keras_reformer.models.reformer_model import ReformerModel


def from_preset(preset, load_weights=True, **kwargs):
    """The model of a preset, of the class that the preset names.

    `ReformerClassifier.from_preset` and the like make a model of their class
    from the same presets. A name stands for a configuration alone, whose
    weights are drawn; `Model.presets` has the names, and what each of them
    is taken from.

    Args:
        preset: name of a configuration; path of a folder that
            `save_to_preset` or `export_to_transformers` wrote, or that holds
            a Reformer of transformers (a name comes first: `"./tiny"` is a
            folder); or `"hf://owner/name"`, such a folder on the Hugging
            Face hub, for which `huggingface_hub` must be installed.
        load_weights: bool. Whether to load the weights of a folder, or to
            draw some. Defaults to `True`.
        **kwargs: arguments of the model or of its backbone, such as `name`,
            `dtype` or `num_hashes`, that replace those of the preset, on both
            sides of an encoder-decoder. Those that followed from others stay:
            windows that look back only, for example, with `causal=False`.

    Returns:
        A model: that of the task that was saved, or the backbone.

    Raises:
        ValueError: if there is no such preset, a file is missing, damaged
            or half-written, or its weights do not fit the arguments.
        ImportError: if `"hf://"` is asked for without `huggingface_hub`.

    Example:

    >>> model = keras_reformer.from_preset("tiny", max_sequence_length=128)
    >>> type(model).__name__, model(np.ones((1, 100), "int32")).shape
    ('ReformerCausalLM', TensorShape([1, 100, 258]))

    A classifier of texts, of the same sizes:

    >>> classifier = keras_reformer.ReformerClassifier.from_preset(
    ...     "tiny", num_classes=3
    ... )
    >>> classifier(np.ones((1, 100), "int32")).shape
    TensorShape([1, 3])

    Its first weights from a language model that was saved:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save_to_preset(folder)
    ...     classifier = keras_reformer.ReformerClassifier.from_preset(
    ...         folder, num_classes=3, causal=False
    ...     )
    """
    return ReformerModel.from_preset(preset, load_weights, **kwargs)
