"""How training goes: optimiser, schedule, bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from throughtime.config import Config

#: What can be watched inside a model.
WATCHED = ("gradients", "gates")


def _split_watched(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, which may also stand in one word with commas between them."""
    found = tuple(dict.fromkeys(part for name in names for part in name.split(",") if part))
    if wrong := [name for name in found if name not in WATCHED]:
        raise ValueError(f'there is no "{wrong[0]}" to watch: there are {", ".join(WATCHED)}')
    return found


class TrainingConfig(Config):
    """How a model is trained."""

    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="Update rule.")
    learning_rate: float = Field(6e-3, gt=0, description="Highest learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(0.01, ge=0, description="Decay of the weights: decoupled in adamw, else L2.")
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the whole gradient; inf for any.")
    clip_value: float | None = Field(None, gt=0, description="Largest absolute value in the gradient.")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="How the learning rate falls after the warm-up."
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the run in which the learning rate rises.")
    max_epochs: int | None = Field(
        None, ge=1, description="Passes over the data; 10 where neither this nor max-minutes is given."
    )
    max_minutes: float | None = Field(
        None, gt=0, description="Minutes of training; the schedule is fitted to them."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=9,
        description="Stop after so many validations without improvement, of which a run has at most 10.",
    )
    average: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Keep the mean of the weights from this share of the run on, as 0.7.",
    )
    watch: Annotated[tuple[str, ...], AfterValidator(_split_watched)] = Field(
        (),
        description="What to look at inside the model as it is trained: gradients, gates, or both.",
    )
    watch_every: int = Field(200, ge=1, description="Steps between two looks.")
    tensorboard: bool = Field(False, description="Write what is recorded for TensorBoard too.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all randomness.")

    @property
    def epochs(self) -> int | None:
        """The bound on epochs that holds, if any."""
        return 10 if self.max_epochs is None and self.max_minutes is None else self.max_epochs


class StreamTraining(TrainingConfig):
    """How a model of one long stream is trained."""

    batch_size: int = Field(16, ge=1, description="Sequences trained side by side.")
    chunk_length: int = Field(
        64, ge=1, description="Time steps that gradients go back: truncated backpropagation through time."
    )


class ExampleTraining(TrainingConfig):
    """How a model of many examples is trained."""

    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate.")
    batch_tokens: int = Field(
        2000, ge=1, description="Most tokens in a batch, padding among them; one example may have more."
    )
