"""`throughtime demo ball`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from throughtime.cli.output import Json, messages, write_json
from throughtime.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from throughtime.data.balls import Numbers

#: Steps after the last frame that errors are told of.
TOLD = (1, 5, 10, 20)
#: Clips that the predictors are measured on, and clips in the film.
TEST, FILMED = 500, 3
#: What is written for pixels of growing brightness.
SHADES = " .:-=+*#%@"


def ball(
    minutes: Annotated[float, arg(help="Minutes of training for each of the two predictors.")] = 1.5,
    balls: Annotated[Literal[1, 2, 3], arg(help="Balls in the box.")] = 1,
    out: Annotated[Path | None, arg(help="Folder of the runs; runs/ball-1 and so on if not given.")] = None,
    json: Json = False,
) -> int:
    """Predict where a bouncing ball will be: from the pixels of ten frames, and from its coordinates.

    Balls move straight and meet walls, and each other, without loss. The next 20 frames are predicted.
    """
    import numpy as np

    from throughtime.tasks import balls as world
    from throughtime.train.config import TrainingConfig
    from throughtime.train.film import draw_film
    from throughtime.train.run import Run, new_folder

    if not minutes > 0:
        raise ConfigError(f"--minutes {minutes:g} leaves no time to train: give more than 0")
    folder, console = out or new_folder("ball"), messages()
    Run.check_new(folder)
    clips = world.make_clips(TEST, balls, seed=2)
    console.print("A ball in a box, as a camera of 32 x 32 pixels sees it; every third frame:\n")
    console.print(_strip(clips.pixels[0, ::3]), markup=False, highlight=False)
    console.print("\nFrom the pixels: a convolutional network sees, an LSTM goes on.")
    training = TrainingConfig(max_minutes=minutes, learning_rate=3e-3)
    config = world.BallConfig(balls=balls, training=training)
    if (model := world.train_on_pixels(folder / "pixels", config, console)) is None:
        return _stopped(folder)
    console.print("\nFrom the coordinates: the forecaster, with a mixture of Gaussians.")
    if (task := world.train_on_coordinates(folder / "coordinates", balls, minutes, console)) is None:
        return _stopped(folder)
    found: dict[str, Numbers] = {
        "constant velocity": world.constant_velocity(clips.positions),
        "from pixels": model.predict(world.batch_of(clips, list(range(TEST))).frames, world.STEPS).numpy(),
        "from coordinates": world.forecast(task, clips, folder),
    }
    errors = {name: world.distances(each, clips).mean((0, 2)) for name, each in found.items()}
    shown = slice(0, FILMED)
    seen = clips.positions[shown, : world.SEEN]
    film = {"truth": clips.positions[shown]} | {
        name: np.concatenate([seen, found[name][shown].reshape(FILMED, world.STEPS, balls, 2)], 1)
        for name in ("from pixels", "from coordinates")
    }
    draw_film(folder / "ball.gif", film, clips.radius[shown], world.SEEN)
    if json:
        told = {name: {str(k): float(each[k - 1]) for k in TOLD} for name, each in errors.items()}
        write_json({"run": str(folder), "errors": told})
    _tell(errors)
    console.print(f"the balls move in {folder / 'ball.gif'}", soft_wrap=True, markup=False)
    return 0


def _stopped(folder: Path) -> int:
    """The exit status after Ctrl-C, of which something is said."""
    messages().print(f"stopped before the predictors could be compared: {folder}", markup=False)
    return 130


def _tell(errors: dict[str, Numbers]) -> None:
    """The mean errors in box widths, a row for each predictor."""
    from rich.table import Table

    table = Table("error in box widths", *(f"after {k}" for k in TOLD))
    for name, each in errors.items():
        table.add_row(name, *(f"{each[k - 1]:.4f}" for k in TOLD))
    messages().print(table)


def _strip(frames: NDArray[np.uint8]) -> str:
    """Frames side by side in letters, two pixels wide and four high each."""
    small = frames.reshape(len(frames), 8, 4, 16, 2).mean((2, 4))
    rows = [[SHADES[int(value * 9 / 255 + 0.5)] for value in row] for row in small.reshape(-1, 16)]
    return "\n".join(
        " | ".join("".join(rows[frame * 8 + line]) for frame in range(len(small))) for line in range(8)
    )
