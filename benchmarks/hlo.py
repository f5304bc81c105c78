"""What the text of a compiled program tells of its time.

The TPU's compiler notes how many cycles it expects a fusion to take
(`estimated_cycles`). Here these are multiplied by the trips of the loops
around them, added up and divided by the clock of the chip. That compares
programs for one chip and shows what costs. Its limits:

- Sorts, gathers of rows and custom calls have no estimate and come on top:
  `unpriced` and `gathered_rows` count them.
- What is copied beside the computation costs nothing, and waiting for it is
  not counted.
- A loop whose condition compares with no constant counts once. Of a
  conditional's branches the dearest counts.
- It is an estimate: no TPU was at hand to hold it against a clock.

`kernels` counts what a GPU would have to start, in any compiler's text.
Only text is read: no other package is needed.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# In Hz, assumed. Google documents 197 Tflop/s in bfloat16 for a v5e with four
# matrix units of 128 x 128, which makes 1.5 GHz; and 918 Tflop/s for a v6e with
# two of 256 x 256, which makes 1.75 GHz at two products a cell and cycle.
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
_FIRST_AXIS = re.compile(r"\[(\d+)")
# Instructions that call others and are priced, and started, as one.
_WHOLE = ("fusion", "custom-call", "sort", "reduce", "scatter", "map")
_UNPRICED = ("sort", "gather", "scatter", "all-reduce")
_NOT_STARTED = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
    *("while", "call", "conditional", "after-all", "partition-id"),
)


class Instruction(NamedTuple):
    """A line of a program.

    Attributes:
        name: str.
        opcode: str, such as `"fusion"`.
        shape: str. What it results in.
        does: str. The opcode; of a fusion around a gather or scatter theirs.
        cycles: int, or None where the compiler notes none.
        trips: int. How often the program runs it.
    """

    name: str
    opcode: str
    shape: str
    does: str
    cycles: int | None
    trips: int


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
    """How often operations run that have no estimate, by what they do."""
    counts = {}
    for each in _Program(program).instructions():
        if each.cycles is None and each.does in _UNPRICED:
            counts[each.does] = counts.get(each.does, 0) + each.trips
    return counts


def gathered_rows(program: str) -> int:
    """Rows, and single numbers, that gathers without an estimate move."""
    return sum(
        int(_FIRST_AXIS.search(each.shape)[1]) * each.trips
        for each in _Program(program).instructions()
        if each.cycles is None and each.does == "gather"
    )


def kernels(program: str) -> int:
    """How many operations run that a GPU would start one by one."""
    return sum(
        each.trips
        for each in _Program(program).instructions()
        if each.opcode not in _NOT_STARTED
    )


def table(program: str, count: int = 20) -> Iterator[tuple]:
    """Rows of the dearest instructions: cycles in all, cycles, trips, name
    and shape."""
    ordered = sorted(priced(program), key=lambda x: -x.cycles * x.trips)
    for each in ordered[:count]:
        yield (
            each.cycles * each.trips,
            each.cycles,
            each.trips,
            each.name,
            each.shape,
        )


class _Program:
    """A program's computations, and how they call one another."""

    def __init__(self, text):
        self.computations, self.entry = {}, None
        for line in text.splitlines():
            opened, found = _COMPUTATION.match(line), _INSTRUCTION.match(line)
            if opened:
                self.computations[opened[1]] = lines = []
                if line.startswith("ENTRY"):
                    self.entry = opened[1]
            elif found:
                lines.append(found.groups())

    def instructions(self, computation=None, trips=1) -> list[Instruction]:
        """All that run, from the entry on."""
        found = []
        for name, text in self.computations[computation or self.entry]:
            each = self._instruction(name, text, trips)
            found.append(each)
            called = _CALLED.findall(text)
            if each.opcode == "while":
                parts = dict(called)
                count = self._trips(parts["condition"], text)
                found += self.instructions(parts["body"], trips * count)
            elif each.opcode == "conditional":
                found += self._dearest_branch(called, text, trips)
            elif each.opcode not in _WHOLE:
                for _, callee in called:
                    found += self.instructions(callee, trips)
        return found

    def _instruction(self, name, text, trips) -> Instruction:
        opcode = _OPCODE.search(re.sub(r"\{[^{}]*\}", "", text))
        opcode = opcode[1] if opcode else ""
        cycles = _CYCLES.search(text)
        return Instruction(
            name,
            opcode,
            text.split("{")[0].split(" ")[0],
            self._does(opcode, text),
            int(cycles[1]) if cycles else None,
            trips,
        )

    def _does(self, opcode, text) -> str:
        if opcode == "fusion":
            for _, callee in _CALLED.findall(text):
                for _, line in self.computations[callee]:
                    for special in ("gather", "scatter"):
                        if f" {special}(" in line:
                            return special
        return opcode

    def _dearest_branch(self, called, text, trips):
        names = [name for _, name in called]
        for listed in _BRANCHES.findall(text):
            names += [name.strip().lstrip("%") for name in listed.split(",")]
        branches = [self.instructions(name, trips) for name in names]
        return max(branches, key=_cycles, default=[])

    def _trips(self, condition, text) -> int:
        """A loop's trips: noted, or the constant of its condition."""
        noted = _TRIPS.search(text)
        if noted:
            return int(noted[1])
        return max(self._constants(condition), default=1)

    def _constants(self, computation) -> Iterator[int]:
        """Integers in a computation, and in those that it calls."""
        for _, line in self.computations[computation]:
            constant = _CONSTANT.match(line)
            if constant:
                yield int(constant[1])
            for _, callee in _CALLED.findall(line):
                yield from self._constants(callee)


def _cycles(instructions) -> int:
    return sum((each.cycles or 0) * each.trips for each in instructions)
