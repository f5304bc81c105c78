"""What `keras-reformer generate` does."""

import os
import sys

import keras
import numpy as np

from keras_reformer import ReformerCausalLM, data, generation
from keras_reformer.commands.run_folder import RunFolder
from keras_reformer.files import reading

_SAMPLERS = {
    "greedy": generation.GreedySampler,
    "random": generation.RandomSampler,
    "top_k": generation.TopKSampler,
    "top_p": generation.TopPSampler,
    "beam": generation.BeamSampler,
}
# What the samplers call those options that are named after one of them.
_OWN_OPTIONS = {"top_k": "k", "top_p": "p"}
# New bytes where nobody says how many.
_NEW_BYTES = 256


def run(
    model, prompt=None, max_length=None, seed=None, stop="", **sampler_options
):
    """Continues a text and writes the new bytes to stdout as they come.

    Args:
        model: path of a `.keras` file, or of the folder of a run.
        prompt: str, or None to read the text from stdin.
        max_length: int. Bytes of the text, prompt included; by default 256
            more than the prompt, as far as the model goes.
        seed: int, or None to draw one.
        stop: str. The first of its bytes ends the text.
        **sampler_options: of `make_sampler`.

    Raises:
        ValueError: if the model or an option does not fit.
    """
    sampler = make_sampler(**sampler_options)
    model = load(model)
    if prompt is None:
        prompt = sys.stdin.buffer.read()
    tokenizer = data.ByteTokenizer()
    prompts = [tokenizer.tokenize(prompt)]
    longest = model.backbone.max_sequence_length
    if max_length is None:
        max_length = min(len(prompts[0]) + _NEW_BYTES, longest)
    options = {
        "sampler": sampler,
        "seed": seed,
        "stop_token_ids": [tokenizer.end_id, *tokenizer.tokenize(stop)],
    }
    for ids in _pieces(model, prompts, max_length, options):
        sys.stdout.buffer.write(to_bytes(ids))
        sys.stdout.buffer.flush()


def _pieces(model, prompts, max_length, options):
    """New token ids of the first prompt, in pieces."""
    if options["sampler"].copies == 1:
        for (ids,) in model.stream(prompts, max_length, **options):
            yield ids
    else:
        # The best beam is known at the end.
        (ids,) = model.generate(prompts, max_length, verbose=False, **options)
        yield ids[len(prompts[0]) :]


def make_sampler(sampler="top_p", **options):
    """A sampler by name.

    Args:
        sampler: str. Name of the sampler.
        **options: its arguments; None stands for its default.

    Raises:
        ValueError: if the sampler takes no such argument.
    """
    given = {k: value for k, value in options.items() if value is not None}
    arguments = {}
    for name, value in given.items():
        if name in _OWN_OPTIONS and name != sampler:
            raise ValueError(
                f"`{name}` is for the sampler of that name. Received: "
                f"{name}={value}, sampler={sampler!r}"
            )
        arguments[_OWN_OPTIONS.get(name, name)] = value
    return _SAMPLERS[sampler](**arguments)


def load(path):
    """The byte-level language model in a file, or in a run's folder.

    Raises:
        ValueError: if there is none.
    """
    file = RunFolder(path).model if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise ValueError(f"There is no such file. Received: MODEL={file!r}")
    with reading(file, "a Keras file"):
        model = keras.models.load_model(file)
    if not isinstance(model, ReformerCausalLM):
        raise ValueError(
            "Only a language model can continue a text. Expected a "
            f"ReformerCausalLM. Received: {type(model).__name__} in {file!r}"
        )
    expected = data.ByteTokenizer.vocabulary_size
    if model.backbone.vocabulary_size != expected:
        raise ValueError(
            "The command reads and writes bytes. Expected a model with "
            f"vocabulary_size={expected}. Received: vocabulary_size="
            f"{model.backbone.vocabulary_size} in {file!r}"
        )
    return model


def to_bytes(ids):
    """The bytes of token ids, without special tokens."""
    first = int(data.ByteTokenizer().tokenize(b"\0")[0])
    ids = np.asarray(ids)
    return (ids[ids >= first] - first).astype(np.uint8).tobytes()
