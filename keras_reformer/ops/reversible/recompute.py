"""Decisions of the forward pass that the backward pass must repeat.

A reversible stack reconstructs a block's input and runs the block again. A
hash of the reconstructed input, which differs by a rounding, may fall into
another bucket, and the gradient would be that of another function. So a layer
wraps such a decision in `save_for_backward`: the stack records it in the
forward pass and replays it in the backward pass. Saved decisions are data of
one call, kept in its residuals.

The recorder is the package's one piece of global state: which
`SavedDecisions`, if any, the code now running belongs to. It is per thread.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_running = threading.local()


class SavedDecisions:
    """What one run of a block decided, in the order it was decided."""

    def __init__(self, values: Sequence[Any] = ()):
        self.values: list[Any] = list(values)
        self._replayed: int | None = None
        self._outer: SavedDecisions | None = None

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Within it, `save_for_backward` decides and keeps the decision.

        Inside of another run, of a stack around, that run decides: its own
        backward pass repeats this forward pass.
        """
        self.values, self._replayed = [], None
        self._outer = getattr(_running, "decisions", None)
        with self._as_running():
            yield

    @contextlib.contextmanager
    def replay(self) -> Iterator[None]:
        """Within it, `save_for_backward` returns the saved decisions."""
        self._replayed = 0
        with self._as_running():
            yield

    @contextlib.contextmanager
    def _as_running(self):
        outer = getattr(_running, "decisions", None)
        _running.decisions = self
        try:
            yield
        finally:
            _running.decisions = outer

    def _next(self, decide):
        if self._replayed is None:
            outer = self._outer
            value = decide() if outer is None else outer._next(decide)
            self.values.append(value)
            return value
        if self._replayed == len(self.values):
            raise RuntimeError(
                "A layer asked to replay a decision that its forward pass "
                "never made. Expected the same calls of `save_for_backward` "
                f"in both passes. Received: {self._replayed + 1} calls, "
                f"{len(self.values)} decisions."
            )
        self._replayed += 1
        return self.values[self._replayed - 1]


def save_for_backward(decide: Callable[[], Any]) -> Any:
    """Decides, or returns what was decided in the forward pass.

    Outside a reversible stack it just calls `decide`. Do not call it inside
    the body of a loop: a step's tensors do not outlive the step.

    Args:
        decide: function without arguments that returns tensors, a structure
            of tensors, or anything else.

    Returns:
        What `decide` returned, now or then.
    """
    decisions = getattr(_running, "decisions", None)
    return decide() if decisions is None else decisions._next(decide)
