"""The TPU compiler's own estimate of how long a program runs.

libtpu notes in the compiled program how many cycles it expects each fusion to
take (`estimated_cycles`). Here these are multiplied by the trips of the loops
around them, added up and divided by the clock of the chip.

That compares programs for one chip, and shows what costs. Its limits:

- Sorts and custom calls have no estimate; `unpriced` counts them. They come
  on top.
- Copies that run beside the computation cost nothing, and waiting for them
  is not counted.
- A loop whose condition compares with no constant counts once. Of a
  conditional's branches the dearest counts.
- It is an estimate. No TPU was at hand to hold it against a clock.

Only text is read: no other package is needed.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

# In Hz, assumed. 197 Tflop/s in bfloat16, as Google documents for a v5e of
# four matrix units of 128 x 128, make 1.5 GHz; 918 of two of 256 x 256 (v6e)
# 1.75 GHz with two products a cell and cycle.
CLOCKS = {"v5e": 1.5e9, "v6e": 1.75e9}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9-]*)\(")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CALLED = re.compile(
    r"\b(body|condition|to_apply|calls|true_computation|false_computation)="
    r"%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONSTANT = re.compile(r"^[su]\d+\[\]\S* constant\((\d+)\)")
_NAME = re.compile(r'op_name="([^"]*)"')
# Of several instructions each, and priced as a whole.
_WHOLE = ("fusion", "custom-call", "sort", "reduce", "scatter", "map")
_UNPRICED = ("sort", "custom-call", "gather", "scatter", "all-reduce")
# They compute nothing.
_FREE_CALLS = ("AllocateBuffer", "AssumeGatherIndicesInBound")


class Instruction(NamedTuple):
    """A line of a program.

    Attributes:
        name: str.
        opcode: str, such as `"fusion"`.
        shape: str. What it results in.
        source: str. The operation that it was lowered from, or "".
        cycles: int, or None where the compiler notes none.
        trips: int. How often the program runs it.
        text: str. All of the line.
    """

    name: str
    opcode: str
    shape: str
    source: str
    cycles: int | None
    trips: int
    text: str


def milliseconds(program: str, chip: str) -> float | None:
    """Estimated time of a program's text; None for a chip of unknown clock."""
    clock = CLOCKS.get(chip)
    return clock and 1e3 * total_cycles(program) / clock


def total_cycles(program: str) -> int:
    """Estimated cycles, over all trips of all loops."""
    return sum(each.cycles * each.trips for each in priced(program))


def priced(program: str) -> list[Instruction]:
    """The instructions that have an estimate."""
    found = _Program(program).instructions()
    return [each for each in found if each.cycles is not None]


def unpriced(program: str) -> dict[str, int]:
    """How often operations run that have no estimate, by their opcodes."""
    counts = {}
    for each in _Program(program).instructions():
        free = any(call in each.text for call in _FREE_CALLS)
        if each.cycles is None and each.opcode in _UNPRICED and not free:
            counts[each.opcode] = counts.get(each.opcode, 0) + each.trips
    return counts


def kernels(program: str) -> int:
    """How many instructions a GPU would start: fusions, products, sorts and
    copies, over all trips of all loops."""
    started = ("fusion", "custom-call", "sort", "copy", "scatter", "reduce")
    return sum(
        each.trips
        for each in _Program(program).instructions()
        if each.opcode in started
    )


def table(program: str, count: int = 20) -> Iterator[tuple]:
    """The dearest instructions: cycles in all, of one trip, trips, shape."""
    ordered = sorted(priced(program), key=lambda x: -x.cycles * x.trips)
    for each in ordered[:count]:
        yield (
            each.cycles * each.trips,
            each.cycles,
            each.trips,
            each.name,
            each.shape,
            each.source,
        )


class _Program:
    """A program's computations, and how they call one another."""

    def __init__(self, text):
        self.computations, self.entry = {}, None
        for line in text.splitlines():
            opened = _COMPUTATION.match(line)
            if opened:
                name = opened[1]
                self.computations[name] = lines = []
                if line.startswith("ENTRY"):
                    self.entry = name
            elif _INSTRUCTION.match(line):
                lines.append(_INSTRUCTION.match(line).groups())

    def instructions(self, computation=None, trips=1) -> list[Instruction]:
        """All that runs, from the entry on."""
        found = []
        for name, text in self.computations[computation or self.entry]:
            each = _instruction(name, text, trips)
            found.append(each)
            if each.opcode == "while":
                called = dict(_CALLED.findall(text))
                count = self._trips(called["condition"], text)
                found += self.instructions(called["body"], trips * count)
            elif each.opcode == "conditional":
                found += self._dearest_branch(text, trips)
            elif each.opcode not in _WHOLE:
                for _, called in _CALLED.findall(text):
                    found += self.instructions(called, trips)
        return found

    def _dearest_branch(self, text, trips):
        names = [name for _, name in _CALLED.findall(text)]
        for listed in _BRANCHES.findall(text):
            names += [name.strip().lstrip("%") for name in listed.split(",")]
        branches = [self.instructions(name, trips) for name in names]
        return max(branches, key=_cost, default=[])

    def _trips(self, condition, text) -> int:
        """A loop's trips: noted, or the constant of its condition."""
        noted = _TRIPS.search(text)
        if noted:
            return int(noted[1])
        constants = [
            int(found[1])
            for _, line in self.computations[condition]
            if (found := _CONSTANT.match(line))
        ]
        return max(constants, default=1)


def _cost(instructions) -> int:
    return sum((each.cycles or 0) * each.trips for each in instructions)


def _instruction(name, text, trips) -> Instruction:
    opcode = _OPCODE.search(_without_layouts(text))
    cycles, source = _CYCLES.search(text), _NAME.search(text)
    return Instruction(
        name,
        opcode[1] if opcode else "",
        text.split("{")[0].split(" ")[0],
        source[1] if source else "",
        int(cycles[1]) if cycles else None,
        trips,
        text,
    )


@functools.cache
def _without_layouts(text) -> str:
    return re.sub(r"\{[^{}]*\}", "", text.split(", metadata=")[0])
