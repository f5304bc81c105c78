"""Who is compared: one attention layer each, the same work as far as it goes.

A contender makes of a case (`length`, `batch`, `mode`, `threads`) a step: a
call without arguments that computes and waits for the result. All project to
8 heads of 64 and back without biases, are causal, and have no dropout. The
Reformer layers have 4 rounds, chunks of 64 and one matrix for queries and
keys; the two exact ones have a matrix for each.

Libraries are imported by the step's maker: no contender pays for another's.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import language_model
import measuring
import reporting
import steps
from language_model import CHUNK

WIDTH = 512
HEADS = 8
HEAD_SIZE = 64
HASHES = 4
INSTALL = 'pip install -e ".[benchmarks]"'
# As at inference; and with the gradients of `sum(y * y)` by inputs and weights.
MODES = ("forward", "forward+backward")
# Of tables of train steps.
STEP_COLUMNS = {
    "s/step": "{seconds:.3f}",
    "tokens/s": "{rate:.0f}",
    "peak growth, MiB": "{growth:.0f}",
    "first step, s": "{first:.1f}",
}


class Contender(NamedTuple):
    """How to make a step, what it needs, and how far it goes.

    `largest_array` gives the bytes of the largest array that the algorithm
    keeps of a sequence, if that is more than linear in its length.
    """

    make: Callable
    packages: tuple[str, ...] = ("tensorflow",)
    ours: bool = True
    largest_array: Callable | None = None
    quadratic_time: bool = False


PUBLISHED = {"packages": ("torch", "transformers"), "ours": False}


def cases(contenders, options, **values):
    """All combinations of values, the contenders side by side."""
    return measuring.grid(**values, contender=chosen(contenders, options))


def chosen(contenders, options):
    """Names of those asked for that can run here; beside a base only ours."""
    names = []
    for name in options.contenders:
        contender = contenders[name]
        present = map(importlib.util.find_spec, contender.packages)
        if not all(present):
            needed = " and ".join(contender.packages)
            print(f"{name}: left out, needs {needed} ({INSTALL})")
        elif contender.ours or not options.base:
            names.append(name)
    return names


def work(contenders, case):
    """A worker's answer to a case that names its contender."""
    step = contenders[case["contender"]].make(case)
    return measuring.measure(step, case["repeats"])


def tables(records, form, ours, columns, note=lambda found: ""):
    """For all that a format of a title names, a table of the contenders.

    Columns are formats of medians, of `us` a token and of the `rate` of
    tokens. `note` makes of the medians by contender what follows the title.
    """
    columns = {"contender": "{contender}", **columns}
    columns |= {"time / ours": "{seconds/}", "memory / ours": "{growth/}"}
    for title, members in reporting.titled(records, form):
        medians = measuring.medians(members, ["contender"])
        for each in medians:
            tokens = each["length"] * each.get("batch", 1)
            each["us"] = each["seconds"] / tokens * 1e6
            each["rate"] = tokens / each["seconds"]
        found = {each["contender"]: each for each in medians}
        rows = reporting.rows(medians, columns, found.get(ours))
        yield title + note(found), *rows


# === TensorFlow ===


def make_layer(shape, num_heads=HEADS, **options):
    """Our LSH layer, built for a shape."""
    import keras_reformer

    options = {"num_hashes": HASHES, "causal": True, "seed": 1} | options
    layer = keras_reformer.LSHSelfAttention(
        num_heads, HEAD_SIZE, chunk_length=CHUNK, **options
    )
    layer.build(shape)
    return layer


def _shape(case):
    return case["batch"], case["length"], WIDTH


def lsh_step(case, jit_compile=True, **options):
    layer = make_layer(_shape(case), **options)
    return _layer_step(layer, case, jit_compile)


def _exact_step(case):
    return lsh_step(case, exact_below=case["length"])


def _keras_step(case):
    import keras

    layer = keras.layers.MultiHeadAttention(HEADS, HEAD_SIZE, use_bias=False)
    x = keras.Input(batch_shape=_shape(case))
    model = keras.Model(x, layer(x, x, use_causal_mask=True))
    return _layer_step(model, case)


def _layer_step(layer, case, jit_compile=True):
    backward = case["mode"] != "forward"
    return steps.layer(layer, _shape(case), jit_compile, backward)


# === PyTorch ===


def _torch_sdpa(case):
    import torch

    layers = torch.nn.ModuleList(
        torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4)
    )

    def call(x):
        query, key, value = (
            layer(x).unflatten(-1, (HEADS, HEAD_SIZE)).transpose(1, 2)
            for layer in layers[:3]
        )
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        return layers[3](attended.transpose(1, 2).flatten(2))

    return _torch_step(layers, call, case)


def _transformers(case):
    import torch
    from transformers.models.reformer import modeling_reformer

    config = language_model.published_config(
        case["length"],
        case.get("num_buckets"),
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        attention_head_size=HEAD_SIZE,
    )
    attention = modeling_reformer.LSHSelfAttention(config)
    output = torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def call(x):
        return output(attention(x).hidden_states)

    return _torch_step(torch.nn.ModuleList([attention, output]), call, case)


def _reformer_pytorch(case):
    import torch
    from reformer_pytorch import LSHSelfAttention

    layer = LSHSelfAttention(
        WIDTH,
        heads=HEADS,
        dim_head=HEAD_SIZE,
        n_hashes=HASHES,
        bucket_size=CHUNK,
        causal=True,
    )
    # The only projection that comes with a bias.
    layer.to_out = torch.nn.Linear(WIDTH, WIDTH, bias=False)
    return _torch_step(layer, layer, case)


def _torch_step(module, call, case):
    import torch

    torch.set_num_threads(case["threads"])
    x = torch.randn(_shape(case), requires_grad=True)
    wait = case.get("wait", _wait)

    def forward():
        with torch.inference_mode():
            wait(call(x))

    def forward_and_backward():
        y = call(x)
        (y * y).sum().backward()
        for tensor in (x, *module.parameters()):
            wait(tensor.grad)
            tensor.grad = None

    training = case["mode"] != "forward"
    module.train(training)
    return forward_and_backward if training else forward


def _wait(tensor):
    """Until it is computed, on a CPU."""
    tensor.flatten()[:1].numpy()


OURS = "ours, XLA"
_IN_MODELS = {"query_key_kernel_size": 2, "center_hashes": True}
CONTENDERS = {
    OURS: Contender(lsh_step),
    "ours, in models": Contender(functools.partial(lsh_step, **_IN_MODELS)),
    "ours, no XLA": Contender(functools.partial(lsh_step, jit_compile=False)),
    "ours, exact": Contender(_exact_step, quadratic_time=True),
    "keras MultiHeadAttention": Contender(
        _keras_step,
        ours=False,
        # Scores of all pairs of tokens, once for each head.
        largest_array=lambda length: 4 * HEADS * length**2,
    ),
    "torch sdpa": Contender(
        _torch_sdpa, ("torch",), ours=False, quadratic_time=True
    ),
    "transformers Reformer": Contender(_transformers, **PUBLISHED),
    "reformer-pytorch": Contender(
        _reformer_pytorch,
        ("torch", "reformer_pytorch"),
        ours=False,
        # Hashes all buckets at once: of every token and round a column each.
        largest_array=lambda length: (
            4 * HEADS * HASHES * length * (length // CHUNK)
        ),
    ),
}
