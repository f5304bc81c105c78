"""What a trained model can do: numbers beside yardsticks, text, pictures."""

import contextlib
import math

import numpy as np

from keras_reformer import data, visualize

PROMPT_LENGTH = 128
_ATTENTION_ROWS = 4


def yardsticks(text):
    """Bits per byte that need no model, computed on the same bytes.

    Args:
        text: uint8 array.

    Returns:
        dict of str to float.
    """
    return {
        "order0": data.order0_entropy(text),
        "bigram": data.bigram_bits_per_byte(text),
        "zlib": data.zlib_bits_per_byte(text),
    }


def lsh_layers(model):
    """Returns the `LSHSelfAttention` layers of a model, with their blocks."""
    return list(model.backbone.lsh_layers().items())


@contextlib.contextmanager
def without_lsh(model):
    """Zeroes the output of all LSH layers for the time of a `with` block."""
    variables = [
        variable
        for _, layer in lsh_layers(model)
        for variable in layer.attention_output.weights
    ]
    values = [variable.numpy() for variable in variables]
    try:
        for variable in variables:
            variable.assign(np.zeros(variable.shape))
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def evaluate(model, windows):
    """Evaluates a model as trained and without its LSH layers.

    Args:
        model: A compiled `ReformerCausalLM`.
        windows: The batches to evaluate on.

    Returns:
        dict of str to float: `loss`, `bits_per_byte`,
        `bits_per_byte_without_lsh` and their difference, `lsh_gain`; the
        last two are `None` if the model has no LSH layer.
    """
    result = model.evaluate(windows, verbose=0, return_dict=True)
    ablated = None
    if lsh_layers(model):
        with without_lsh(model):
            ablated = model.evaluate(windows, verbose=0, return_dict=True)
            ablated = float(ablated["bits_per_byte"])
    bits = float(result["bits_per_byte"])
    return {
        "loss": float(result["loss"]),
        "bits_per_byte": bits,
        "bits_per_byte_without_lsh": ablated,
        "lsh_gain": None if ablated is None else ablated - bits,
    }


def format_table(bits, references, ablated=None):
    """Formats bits per byte beside the yardsticks of the same bytes.

    Args:
        bits: float. The model's.
        references: dict, as `yardsticks` gives it.
        ablated: float or `None`. The model's without its LSH layers.

    Returns:
        str. A table of several lines.
    """
    names = {
        "order0": "order-0 entropy",
        "bigram": "bigram table",
        "zlib": "zlib -9",
    }
    rows = [(names[name], value) for name, value in references.items()]
    if ablated is not None:
        rows.append(("this model, LSH output zeroed", ablated))
    rows.append(("this model", bits))
    lines = [f"{'validation text':<32}bits per byte"]
    lines += [f"{name:<32}{value:13.3f}" for name, value in rows]
    return "\n".join(lines)


def make_prompt(text, limit):
    """Cuts a prompt of whole lines out of a text.

    Args:
        text: uint8 array.
        limit: int. Bytes at most.

    Returns:
        int32 array of token ids.
    """
    start = 0
    newlines = np.flatnonzero(text[:-limit] == ord("\n"))
    if newlines.size:
        start = int(newlines[0]) + 1
    piece = text[start : start + limit]
    ends = np.flatnonzero(piece == ord("\n"))
    if ends.size:
        piece = piece[: ends[-1] + 1]
    return data.ByteTokenizer().tokenize(piece.tobytes())


def generate_sample(model, text, *, sample_length, max_length, seed):
    """Generates text after a prompt from `text`.

    Args:
        model: A `ReformerCausalLM`.
        text: uint8 array that the prompt is taken from.
        sample_length: int. Bytes to generate.
        max_length: int. Bytes that the model can hold, prompt included.
        seed: int. Seed of the sampler.

    Returns:
        A pair of str: the prompt and its continuation.
    """
    sample_length = min(sample_length, max_length - 1)
    prompt = make_prompt(text, min(PROMPT_LENGTH, max_length - sample_length))
    ids = model.generate(
        [prompt], max_length=len(prompt) + sample_length, seed=seed
    )[0]
    tokenizer = data.ByteTokenizer()
    return (
        tokenizer.detokenize(prompt),
        tokenizer.detokenize(np.asarray(ids)[len(prompt) :]),
    )


def lsh_statistics(model, token_ids, rows=None):
    """Looks into the deepest LSH layer of a model.

    Args:
        model: A `ReformerCausalLM`.
        token_ids: int32 array of shape `(1, length)`.
        rows: list of int. Positions of the queries to look at; by default a
            few, spread over the length.

    Returns:
        A triple: the layer's block number, the rows (positions) looked at,
        and the layer's `attention_statistics` as NumPy arrays. `None` if the
        model has no LSH layer.
    """
    found = lsh_layers(model)
    if not found:
        return None
    index, layer = found[-1]
    blocks = model.backbone.sequence.blocks
    embedded = model.backbone.embed(token_ids)
    streams = (embedded, embedded)
    for block in blocks[:index]:
        streams = block(streams, training=False)
    inputs = blocks[index].attention.normalization(streams[1])
    if rows is None:
        rows = _spread_rows(token_ids.shape[1])
    statistics = layer.attention_statistics(inputs, rows)
    return (
        index,
        rows,
        {name: np.asarray(value) for name, value in statistics.items()},
    )


def _spread_rows(length):
    rows = [
        math.ceil(length * (number + 1) / _ATTENTION_ROWS) - 1
        for number in range(_ATTENTION_ROWS)
    ]
    return sorted(set(rows))


def draw_lsh(model, text, path):
    """Draws buckets and attention of the deepest LSH layer over a text.

    Args:
        model: A `ReformerCausalLM`.
        text: uint8 array, one window.
        path: str. The PNG file to write.

    Returns:
        bool. Whether there was an LSH layer to draw.
    """
    ids = data.ByteTokenizer().tokenize(text.tobytes())[None]
    found = lsh_statistics(model, ids)
    if found is None:
        return False
    index, rows, statistics = found
    visualize.plot_lsh(
        statistics, path, rows=rows, text=text.tobytes(), layer=index
    )
    return True
