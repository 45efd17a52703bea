"""What is shown of a recurrence in its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from throughtime.errors import ShapeError
from throughtime.nn.time import reverse


@dataclass(frozen=True)
class StateHook:
    """What `Recurrent.register_state_hook` was asked for."""

    hook: Callable[[Tensor], object]
    index: int
    state: str
    step: int | None

    def check(self, steps: int) -> None:
        """Raise `ShapeError` where a sequence has no such step."""
        if self.step is not None and not -steps <= self.step < steps:
            raise ShapeError(f"a hook waits for step {self.step}, and the sequence has {steps}")

    def call(self, gradient: Float[Tensor, "T B H"], lengths: Tensor | None, turned: bool) -> None:
        """Show the hook the steps it wants, in the order of x."""
        if turned:
            gradient = reverse(gradient, lengths)
        if self.step is None:
            self.hook(gradient.transpose(0, 1))
        else:
            self.hook(gradient[self.step])
