"""The forecasting task: what comes next in series of numbers, with how sure that is."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import tyro
from pydantic import AfterValidator, Field, model_validator

from throughtime.config import ChoiceConfig, Config
from throughtime.data.calendar import natural_cycles, natural_season
from throughtime.data.series import Floats, Part, Series
from throughtime.data.windows import (
    Centre,
    Framing,
    Origin,
    Relative,
    Scale,
    Statistics,
    WindowBatch,
    WindowBatches,
    Windows,
    grouped,
    origins_of,
    with_future,
)
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.heads.density import (
    LEVELS,
    Density,
    Gaussian,
    Mixture,
    NegativeBinomial,
    Quantiles,
    StudentT,
)
from throughtime.models.forecaster import Forecaster, Horizons
from throughtime.tasks.series import SeriesConfig, divided, read_series, target_names
from throughtime.tasks.task import Corpus, Paths, Report, Task, check_cell
from throughtime.train.backtest import Backtest, spread
from throughtime.train.config import TrainingConfig
from throughtime.train.fan import Fan, draw_fans
from throughtime.train.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Windows that are computed side by side when the model is used.
ROWS = 256
#: Forecasts that the figure of a run shows.
SHOWN = 6
HEADS: Mapping[str, Callable[..., Density]] = {
    "gaussian": Gaussian,
    "student-t": StudentT,
    "negative-binomial": NegativeBinomial,
    "quantiles": Quantiles,
    "mixture": Mixture,
}


class ForecasterModelConfig(ChoiceConfig):
    """The model: what it looks at, a recurrence, a distribution."""

    choice = "head"
    read_by: ClassVar = {"components": ("mixture",)}

    head: Literal["gaussian", "student-t", "negative-binomial", "quantiles", "mixture"] = Field(
        "student-t", description="Distribution of a value."
    )
    components: int = Field(5, ge=1, description="Gaussians of a mixture.")
    horizon: int = Field(24, ge=1, description="Steps that are forecast.")
    context: int | None = Field(
        None, ge=1, description="Steps that are looked at; twice the horizon or season if not given."
    )
    horizons: Horizons = Field(
        "direct", description="Every step from the context, or each from the one before (recursive)."
    )
    lags: tuple[int, ...] | None = Field(
        None, description="Earlier values shown at each step; the season's, if there is one."
    )
    centre: Centre = Field("mean", description="What values of a window are counted from.")
    scale: Scale = Field("deviation", description="Unit of the values of a window.")
    relative: Relative = Field("centre", description="What is forecast is the difference to this.")
    scheduled_sampling: float = Field(
        0.0, ge=0, le=1, description="Share of values before that training draws from the model (recursive)."
    )
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(64, ge=1, description="Units of each layer.")
    layers: int = Field(1, ge=1, description="Layers on each other.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout between layers and on the output.")
    zoneout: float = Field(0.0, ge=0, lt=1, description="Probability that a unit keeps its state at a step.")

    @model_validator(mode="after")
    def _check_together(self) -> ForecasterModelConfig:
        if self.horizons == "direct" and (self.relative == "previous" or self.scheduled_sampling):
            raise ValueError(
                "--relative previous and --scheduled-sampling read the step before: take --horizons recursive"
            )
        if self.head == "negative-binomial" and (self.centre, self.relative) != ("zero", "centre"):
            raise ValueError("counts have no other centre: with --head negative-binomial take --centre zero")
        if self.lags is not None and min(self.lags, default=1) < 1:
            raise ValueError(f"lags: give numbers of steps from 1, got {self.lags}")
        return self


class ForecastConfig(Config):
    """How the model is used."""

    samples: int = Field(100, ge=1, description="Futures that are drawn for each forecast.")
    levels: tuple[float, ...] = Field((0.05, 0.5, 0.95), description="Quantiles that are told of a forecast.")
    stride: int | None = Field(
        None, ge=1, description="Steps between the forecasts that are measured; the horizon if not given."
    )
    future_seed: int = Field(0, ge=0, lt=2**63, description="Seed of the futures.")

    @model_validator(mode="after")
    def _check_levels(self) -> ForecastConfig:
        if not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels: give numbers between 0 and 1, got {self.levels}")
        return self


class ForecasterTraining(TrainingConfig):
    """How a forecaster is trained."""

    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate.")
    batch_size: int = Field(64, ge=1, description="Windows in a batch.")
    noise: float = Field(
        0.0,
        ge=0,
        description="Most noise on what a quarter of the windows shows, in units of the window (--scale).",
    )


class ForecasterConfig(Config):
    """Everything that decides a training of a forecaster."""

    task: Annotated[Literal["forecaster"], tyro.conf.Suppress] = "forecaster"
    data: SeriesConfig = SeriesConfig()
    model: ForecasterModelConfig = ForecasterModelConfig()
    search: ForecastConfig = ForecastConfig()
    training: ForecasterTraining = ForecasterTraining()


class Encoded(NamedTuple):
    """Series as numbers, and where forecasts of them begin that are measured."""

    part: Part
    windows: Windows
    origins: list[Origin]


class ForecasterTask(Task[Part, Encoded]):
    """A forecaster with the sizes of the numbers that it was trained on."""

    config_type = ForecasterConfig
    draws = True

    def __init__(self, config: ForecasterConfig, processor: dict[str, Any]) -> None:
        self.config = config
        model = config.model
        try:
            self.targets: list[str] = list(processor["targets"])
            self.step: str = processor["step"]
            self.statistics = Statistics.from_json(processor["statistics"])
            self.framing = Framing(
                context=processor["context"],
                horizon=model.horizon,
                lags=tuple(processor["lags"]),
                season=processor["season"],
                cycles=tuple(processor["cycles"]),
                centre=model.centre,
                scale=model.scale,
                relative=model.relative,
                positions=config.data.positions,
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"the description of the series is damaged: {error}") from None
        head = HEADS[model.head]
        self.model: Forecaster = Forecaster(
            self.framing.width(self.statistics),
            len(self.targets),
            model.horizon,
            head=partial(head, components=model.components) if model.head == "mixture" else head,
            previous=model.relative == "previous",
            **model.model_dump(
                include={
                    "horizons",
                    "scheduled_sampling",
                    "cell",
                    "hidden",
                    "layers",
                    "dropout",
                    "zoneout",
                }
            ),
        )

    @classmethod
    def read(cls, config: ForecasterConfig) -> Corpus[Part]:
        """The series; validation and test are files, or the ends of series, or some of them."""
        return divided(config.data, config.training.seed, config.model.head == "negative-binomial")

    @classmethod
    def learn(
        cls, config: ForecasterConfig, train: Part, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The sizes of the numbers, and what the dates say; those of a run that is begun from stay."""
        if before is not None:
            return {
                name: before[name]
                for name in ("targets", "statistics", "step", "season", "cycles", "lags", "context")
            }
        data, model = config.data, config.model
        if data.positions and (model.centre == "global" or model.scale == "mean"):
            raise ConfigError(
                "--centre global and --scale mean depend on where the coordinates begin, and forecasts of "
                "--positions do not: take others, such as --centre last --scale changes"
            )
        step = train.series[0].step
        season = data.season or natural_season(step)
        lags = _lags(config, season)
        if config.training.noise and (lags or model.relative == "season"):
            raise ConfigError(
                "--lags, which the season is by default, and --relative season show values without the "
                "--noise: add --lags without numbers, and take another --relative"
            )
        constant = [one for one in train.series if (np.ptp(one.values, axis=0) == 0).all()]
        if constant:
            logger.warning(
                "%d of %d series never change, the first is %s (%s)",
                len(constant),
                len(train),
                constant[0].name or "the only one",
                constant[0].place,
            )
        return {
            "targets": list(target_names(data, train)),
            "statistics": Statistics.fit(train.series).to_json(),
            "step": str(step),
            "season": season,
            "cycles": natural_cycles(step) if data.calendar is None else list(data.calendar),
            "lags": lags,
            "context": model.context or 2 * max(season, model.horizon),
        }

    def batches(self, train: Part) -> WindowBatches:
        """All windows of the series, in random order."""
        origins = self._origins(train, 1)
        training = self.config.training
        return WindowBatches(
            self._windows(train.series), origins, training.batch_size, training.seed, training.noise
        )

    def encode(self, part: Part) -> Encoded:
        """The windows that are measured: one every `stride` steps of each series."""
        stride = self.config.search.stride or self.framing.horizon
        return Encoded(part, self._windows(part.series), self._origins(part, stride))

    def size(self, part: Encoded) -> int:
        """Steps, those of the contexts among them."""
        return len(part.origins) * (self.framing.context + self.framing.horizon)

    def validate(self, part: Encoded) -> Metrics:
        """The loss, and the errors of one forecast of each window."""
        return self._backtest(part, samples=0).metrics

    def measure(self, part: Encoded) -> Report:
        """Errors of forecasts that are made again and again, beside those of forecasts without a model."""
        backtest = self._backtest(part, self.config.search.samples)
        fans = backtest.fans(self.config.search.levels)[:SHOWN]
        return Report(backtest.metrics, backtest.rows(), {"forecast": partial(draw_fans, fans)})

    def sample(self, part: Encoded) -> str:
        """The first forecast beside what came."""
        [batch] = [part.windows.batch(part.origins[:1])]
        point = batch.in_units(self.model.points(batch.to(self._device)).cpu())[0]
        series, step = part.part.series[part.origins[0].series], part.origins[0].step
        true = series.values[step : step + self.framing.horizon]
        lines = [f"{series.name} from {series.times[step]}".strip()]
        for k, name in enumerate(self.targets):
            lines.append(f"{name} forecast " + " ".join(f"{value:.5g}" for value in point[:, k]))
            lines.append(f"{name} came     " + " ".join(f"{value:.5g}" for value in true[:, k]))
        return "\n".join(lines)

    def open(self, paths: Paths) -> Part:
        """Other series, of which every step that has a whole context before it is to be forecast."""
        series = self._read(paths)
        return Part(series, [0] * len(series))

    def inputs(self, path: Path) -> Iterable[Series]:
        """The series of a table, to be gone on with."""
        return self._read((path,))

    def answer(self, inputs: Sequence[Series | str]) -> list[dict[str, Any]]:
        """The next steps of each series: their times, and of each target one forecast and quantiles.

        A text is the series itself: numbers with spaces between the steps and commas between the targets.
        """
        series = [self._ready(each) for each in inputs]
        answers: list[dict[str, Any]] = [{} for _ in inputs]
        for rows, batch in self._batches_of(series):
            points = batch.in_units(self.model.points(batch.to(self._device)).cpu())
            for row, point in zip(rows, points, strict=True):
                paths = self._paths(series[row], self.config.search.samples)
                answers[row] = self._answer(series[row], point, paths)
        return answers

    def input_batches(self, inputs: Sequence[Series | str]) -> Iterator[tuple[list[int], WindowBatch]]:
        """The last windows of series."""
        for rows, batch in self._batches_of([self._ready(each) for each in inputs]):
            yield rows, batch.to(self._device)

    def show(self, answer: dict[str, Any]) -> str:
        """A line for each step: its time, and of each target the forecast and the quantiles."""
        lines = [answer["series"]] if answer["series"] else []
        for k, time in enumerate(answer["times"]):
            cells = [
                f"{name} {values['point'][k]:.6g} ("
                + ", ".join(f"{level} {values[level][k]:.6g}" for level in values if level != "point")
                + ")"
                for name, values in answer["forecast"].items()
            ]
            lines.append(f"{time}  " + "  ".join(cells))
        return "\n".join(lines)

    def draw(self, answer: dict[str, Any]) -> Figure:
        """The fan of the forecast behind the past."""
        return draw_fans([Fan.of_answer(answer, name) for name in answer["forecast"]])

    def remarks(self) -> list[str]:
        """Sizes, and what runs the recurrence."""
        parameters = sum(p.numel() for p in self.model.parameters())
        framing = self.framing
        lags = ", ".join(map(str, framing.lags)) or "none"
        shown = f"lags {lags}, calendar {', '.join(framing.cycles) or 'none'}"
        return [
            f"{framing.horizon} steps from {framing.context}, season {framing.season}, {shown}; "
            f"{parameters:,} parameters",
            f"{self.config.model.cell} runs by {self.model.recurrence.explain()}",
        ]

    def _read(self, paths: Paths) -> list[Series]:
        """The series of files; raises `DataError` where their steps are not those of the training."""
        series = read_series(self.config.data, paths, self._counts)
        for one in series:
            if one.step is not None and str(one.step) != self.step:
                raise DataError(
                    f"{one.place}: {one.name or 'the series'} has steps of {one.step}, and the model learned "
                    f"from steps of {self.step}: give series of those"
                )
        return series

    @property
    def _counts(self) -> bool:
        """Whether values are counts."""
        return bool(self.config.model.head == "negative-binomial")

    def _origins(self, part: Part, stride: int) -> list[Origin]:
        framing = self.framing
        origins = origins_of(part, framing.context, framing.horizon, stride)
        have = {origin.series for origin in origins}
        short = [k for k in range(len(part)) if k not in have]
        if short:
            one, start = part.series[short[0]], part.starts[short[0]]
            kept = f", {one.observed - start} of them kept apart" if start else ""
            what = (
                f"{len(short)} of {len(part)} series have no window of {framing.context} + {framing.horizon} "
                f"steps, the first is {one.name or 'the only one'} with {one.observed}{kept} ({one.place})"
            )
            if not origins:
                raise DataError(
                    f"{what}: take a smaller --context or --horizon, or "
                    + ("keep more apart, as with --valid-steps" if start else "give longer series")
                )
            logger.warning("%s; they are left out", what)
        return origins

    def _windows(self, series: Sequence[Series]) -> Windows:
        return Windows(series, self.framing, self.statistics)

    def _batches_of(self, series: Sequence[Series]) -> Iterator[tuple[list[int], WindowBatch]]:
        """The last window of each series."""
        if not series:
            return
        windows = self._windows(series)
        origins = [Origin(k, one.observed) for k, one in enumerate(series)]
        for rows in grouped(origins, ROWS):
            yield rows, windows.batch([origins[k] for k in rows])

    def _backtest(self, part: Encoded, samples: int) -> Backtest:
        """The forecasts of all windows, beside what came."""
        found = Backtest(self.framing, self.statistics, self.targets)
        shown = spread(part.origins, SHOWN) if samples else []
        for rows in grouped(part.origins, ROWS):
            origins = [part.origins[k] for k in rows]
            batch = part.windows.batch(origins)
            on_device = batch.to(self._device)
            with torch.no_grad():
                found.add_loss(self.model.loss(on_device))
            points = batch.in_units(self.model.points(on_device).cpu())
            for origin, point in zip(origins, points, strict=True):
                paths = self._draw(part.windows, origin, samples) if samples else None
                found.add(part.part.series[origin.series], origin.step, point, paths, origin in shown)
        return found

    def _paths(self, series: Series, samples: int) -> Floats:
        return self._draw(self._windows([series]), Origin(0, series.observed), samples)

    def _draw(self, windows: Windows, origin: Origin, samples: int) -> Floats:
        """Futures of one window [N, H, C], by chance of its own: other windows are nothing to it."""
        batch = windows.batch([origin])
        own = f"{self.config.search.future_seed} {origin.step} {windows.series[origin.series].name}"
        generator = torch.Generator(self._device).manual_seed(zlib.crc32(own.encode()))
        return batch.in_units(self.model.paths(batch.to(self._device), samples, generator).cpu())

    def _answer(self, series: Series, point: Floats, paths: Floats) -> dict[str, Any]:
        now = series.observed
        past = slice(max(now - self.framing.context, 0), now)
        levels = self._levels()
        quantiles = np.quantile(paths, levels, axis=0, method="inverted_cdf" if self._counts else "linear")
        return {
            "series": series.name,
            "times": [str(time) for time in series.times[now : now + self.framing.horizon]],
            "forecast": {
                name: {"point": point[:, k].tolist()}
                | {str(level): quantiles[j, :, k].tolist() for j, level in enumerate(levels)}
                for k, name in enumerate(self.targets)
            },
            "past": {
                "times": [str(time) for time in series.times[past]],
                "values": {name: series.values[past, k].tolist() for k, name in enumerate(self.targets)},
            },
        }

    def _levels(self) -> tuple[float, ...]:
        """The quantiles that are told; raises `ConfigError` where the head knows none so far out."""
        levels: tuple[float, ...] = self.config.search.levels
        if (
            self.config.model.head == "quantiles"
            and not LEVELS[0] <= min(levels) <= max(levels) <= LEVELS[-1]
        ):
            raise ConfigError(
                f"a model of quantiles knows those from {LEVELS[0]} to {LEVELS[-1]}, and --levels asks for "
                f"{', '.join(map(str, levels))}"
            )
        return levels

    def _ready(self, given: Series | str) -> Series:
        series = given if isinstance(given, Series) else self._from_text(given)
        if 0 < series.observed < self.framing.context:
            logger.warning(
                "%s has %d steps, and the model learned to look at %d: it may be less sure than it says",
                series.name or "the series",
                series.observed,
                self.framing.context,
            )
        return with_future(series, self.framing.horizon)

    def _from_text(self, text: str) -> Series:
        sizes = {part: len(scaling.mean) for part, scaling in self.statistics.parts.items()}
        if self.framing.cycles or sizes["known"] or sizes["past"] or sizes["static"]:
            raise DataError("this model reads dates or other columns: give a table with --file")
        dimensions = len(self.targets)
        rows = (text.replace(",", " ") if dimensions == 1 else text).split()
        try:
            values = np.array([[float(cell) for cell in row.split(",")] for row in rows])
        except ValueError:
            values = np.zeros((0, 0))
        if values.shape[1:] != (dimensions,) or not np.isfinite(values).all():
            form = " ".join([",".join(self.targets)] * 2)
            raise DataError(f'"{text[:40]}" is no series: give numbers as "{form} ..."')
        nothing = np.zeros((len(values), 0))
        return Series("", np.arange(len(values)), values, nothing, nothing, np.zeros(0), f'"{text[:20]}"')


def _lags(config: ForecasterConfig, season: int) -> list[int]:
    lags = config.model.lags
    if config.data.positions:  # which are turned, and what stands beside them is not
        if lags:
            raise ConfigError("--lags are not read with --positions: leave them out")
        return []
    return ([season] if season > 1 else []) if lags is None else list(lags)
