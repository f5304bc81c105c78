"""The peak memory of a train step, part by part.

A reversible stack keeps two streams, whatever its depth, and works on one
block at a time, so a step takes

    variables + optimizer + gradients
    + streams(tokens) + attention(tokens) + hashing(tokens) + rounds(tokens)
    + merging(tokens) + chunks

with a share of each tensor's size that was fitted to measured steps (see
docs/scaling.md): how often it exists at the peak is the compiler's choice.
"""

import dataclasses
import inspect
import math
from typing import NamedTuple

from keras_reformer.layers import checks
from keras_reformer.layers.feed_forward import UNITS_IN_STEP
from keras_reformer.models import ReformerBackbone
from keras_reformer.models.reformer_config import ReformerConfig
from keras_reformer.ops.loops.tiling import TOKENS_IN_GROUP
from keras_reformer.ops.losses import LOGITS_IN_STEP
from keras_reformer.planning import sizes
from keras_reformer.planning.devices import Device, find_device

# Numbers that an optimizer keeps of each parameter. Adafactor's are of a
# kernel's rows and columns.
OPTIMIZERS = {"sgd": 0, "momentum": 1, "adafactor": 0, "adam": 2, "adamw": 2}
PRECISIONS = {"float32": 4, "mixed_bfloat16": 2}
MIB = 2**20


class Usage(NamedTuple):
    """How often each tensor exists at the peak, fitted to measured steps.

    Attributes:
        gradients: Times the size of the trainable variables.
        streams: Times a residual stream, `(batch, length, hidden_dim)`.
        attention: Times the heads' vectors, `(batch, length, heads, dim)`.
        hashing: Times the numbers of hash rounds, `(batch, length, heads,
            rounds)`: buckets, orders and what follows from them.
        rounds: Times what a round results in, a row of a TPU's lanes for each
            token and head, where that is more than the chip holds. Texts of
            up to `TOKENS_IN_GROUP` tokens are taken one head at a time there.
        merging: Times the heads' vectors where a model has global tokens,
            whose part of the softmax is merged into the windows'.
        chunks: Times what wide functions hold at a time.
        runtime: MiB of the process and its libraries; less than zero where
            a part lies in a chip's own memory, which no plan counts.
        code: MiB of each block, traced and compiled.
    """

    gradients: float
    streams: float
    attention: float
    hashing: float
    rounds: float
    merging: float
    chunks: float
    runtime: float
    code: float


USAGES = {
    "tpu": Usage(0.15, 5.28, 10.04, 17.15, 2.51, 0.65, 2.09, -24.5, 0.0),
    "cpu": Usage(2.99, 6.07, 8.15, 49.6, 0.0, 8.0, 0.0, 1308.0, 51.9),
    # Nobody has measured one: a CPU's tensors, and what libraries take there.
    "gpu": Usage(2.99, 6.07, 8.15, 49.6, 0.0, 8.0, 1.0, 500.0, 0.0),
}


class Part(NamedTuple):
    """A part of a step's memory: its name, bytes, and what it follows from."""

    name: str
    size: float
    formula: str


class Plan(NamedTuple):
    """What a train step needs on one device.

    Attributes:
        device: `Device`.
        parts: list of `Part`.
        parameters: Number of the model's parameters.
        advice: list of pairs, a change and the bytes that a step needs with
            it, the least change first.
    """

    device: Device
    parts: list
    parameters: int
    advice: list

    @property
    def total(self):
        """Bytes at the peak."""
        return sum(part.size for part in self.parts)

    @property
    def fits(self):
        return self.total <= self.device.memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStep:
    """A model's config, and what else a step's memory follows from."""

    config: ReformerConfig
    batch_size: int = 1
    chips: int = 1
    optimizer: str = "adam"
    precision: str = "float32"

    @property
    def tokens(self):
        """Tokens on each device."""
        rows = math.ceil(self.batch_size / self.chips)
        return rows * self.config.max_sequence_length


def plan_training(
    *,
    batch_size=1,
    chips=1,
    optimizer="adam",
    precision="float32",
    device="v5e",
    memory=None,
    **model,
):
    """Predicts the peak memory of a train step of a `ReformerCausalLM`.

    Args:
        batch_size: int. Sequences in a step, on all chips together. Defaults
            to `1`.
        chips: int. Devices that share the batch. Defaults to `1`.
        optimizer: one of `OPTIMIZERS`. Defaults to `"adam"`.
        precision: `"float32"` or `"mixed_bfloat16"`. Defaults to
            `"float32"`.
        device: one of `DEVICES`. Defaults to `"v5e"`.
        memory: float. GiB of the device's memory, if it is another.
        **model: arguments of `ReformerBackbone`.

    Returns:
        `Plan`.

    Raises:
        ValueError: if an argument is out of its range, or unknown.

    Example:

    >>> plan = keras_reformer.planning.plan_training(
    ...     vocabulary_size=258, num_layers=6, num_heads=2, key_dim=64,
    ...     hidden_dim=256, intermediate_dim=512, max_sequence_length=65536,
    ...     device="v5e",
    ... )
    >>> plan.fits
    True
    """
    step = TrainStep(
        config=resolve(model),
        batch_size=checks.positive_int("batch_size", batch_size),
        chips=checks.positive_int("chips", chips),
        optimizer=checks.choice("optimizer", optimizer, tuple(OPTIMIZERS)),
        precision=checks.choice("precision", precision, tuple(PRECISIONS)),
    )
    device = find_device(device, memory)
    return Plan(
        device,
        _parts(step, device),
        sizes.count_parameters(step.config),
        _advice(step, device),
    )


def resolve(model):
    """The resolved `ReformerConfig` of a backbone of these arguments."""
    signature = inspect.signature(ReformerBackbone.__init__)
    fields = {field.name for field in dataclasses.fields(ReformerConfig)}
    unknown = set(model) - fields
    if unknown:
        raise ValueError(
            "Expected arguments of `ReformerBackbone`. Received: "
            f"{', '.join(sorted(unknown))}"
        )
    defaults = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name in fields
    }
    missing = [
        name
        for name, value in {**defaults, **model}.items()
        if value is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(
            f"A plan follows from sizes. Expected {', '.join(missing)} too. "
            f"Received: {', '.join(sorted(model)) or 'no argument'}"
        )
    return ReformerConfig(**{**defaults, **model}).resolve()


# === Parts ===


def _parts(step, device):
    """The parts of a step's memory on one device."""
    usage, tensors = USAGES[device.platform], tensor_sizes(step, device)
    formulas = {
        "variables": "parameters x 4 bytes",
        "optimizer": f"{OPTIMIZERS[step.optimizer]} numbers a parameter",
        "gradients": f"{usage.gradients:.2g} x variables",
        "streams": f"{usage.streams:.2g} x batch x length x hidden_dim x 4",
        "attention": f"{usage.attention:.2g} x batch x length x heads x "
        "key_dim, of one block",
        "hashing": f"{usage.hashing:.2g} x batch x length x heads x rounds",
        "rounds": f"{usage.rounds:.2g} x a row of lanes for each token and "
        "head, where the chip does not hold them",
        "merging": f"{usage.merging:.2g} x batch x length x heads x key_dim, "
        "where there are global tokens",
        "chunks": f"{usage.chunks:.2g} x what feed-forward and loss compute "
        "at a time",
        "runtime": "the process and its libraries",
        "code": f"{usage.code:.2g} MiB x blocks",
    }
    times = {"variables": 1, "optimizer": 1, **usage._asdict()}
    return [
        Part(name, times[name] * tensors[name], formula)
        for name, formula in formulas.items()
    ]


def tensor_sizes(step, device):
    """Bytes of each kind of tensor, once, by the names of `Usage`."""
    config, tokens = step.config, step.tokens
    variables = 4 * sizes.count_parameters(config)
    heads = tokens * config.num_heads
    hashed = tokens * config.num_key_value_heads
    width = PRECISIONS[step.precision]
    units = min(tokens * config.intermediate_dim, UNITS_IN_STEP)
    logits = min(tokens * config.vocabulary_size, LOGITS_IN_STEP)
    is_hashed = "lsh" in sizes.kinds(config)
    row = 4 * heads * _padded(config.key_dim, device)
    merged = config.num_global_tokens > 0
    # Shorter rows are attended to one by one, on the chip.
    is_long = config.max_sequence_length > TOKENS_IN_GROUP
    is_large = device.platform == "tpu" and is_long and row > device.on_chip
    return {
        "variables": variables,
        "optimizer": OPTIMIZERS[step.optimizer] * variables,
        "gradients": variables,
        "streams": 4 * tokens * _padded(config.hidden_dim, device),
        "attention": width * heads * _padded(2 * config.key_dim, device) // 2,
        "hashing": 4 * hashed * config.num_hashes * is_hashed,
        "rounds": row * is_hashed * is_large,
        "merging": 4 * heads * config.key_dim * merged,
        "chunks": 4 * max(units, logits),
        "runtime": MIB,
        "code": MIB * config.num_layers,
    }


def _padded(size, device):
    return -(-size // device.lanes) * device.lanes


# === Advice ===


def _advice(step, device):
    """Changes that make a step smaller, and what it needs with each."""
    found = [
        (text, sum(part.size for part in _parts(changed, device)))
        for text, changed in _changes(step)
    ]
    total = sum(part.size for part in _parts(step, device))
    return [(text, size) for text, size in found if size < 0.99 * total]


def _changes(step):
    config = step.config
    if step.optimizer != "adafactor":
        yield (
            "optimizer adafactor",
            dataclasses.replace(step, optimizer="adafactor"),
        )
    if step.precision == "float32":
        yield (
            "precision mixed_bfloat16",
            dataclasses.replace(step, precision="mixed_bfloat16"),
        )
    if step.batch_size > step.chips:
        yield (
            f"{2 * step.chips} chips for the batch",
            dataclasses.replace(step, chips=2 * step.chips),
        )
    for name in ("num_hashes", "max_sequence_length", "hidden_dim"):
        value = getattr(config, name)
        if value > 1:
            smaller = dataclasses.replace(config, **{name: value // 2})
            yield (
                f"{name} {value // 2:,}",
                dataclasses.replace(step, config=smaller),
            )
