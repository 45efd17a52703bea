"""`throughtime train TASK DATA`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from throughtime.cli.output import Json, messages, parse, table, write, write_json
from throughtime.config import Config
from throughtime.errors import ConfigError
from throughtime.tasks.table import TASKS, find_task

#: Rows of a table that are shown after a training; `evaluate` shows more.
MOST_PARTS = 12


@dataclass(frozen=True)
class Options:
    """What `train` takes beside the configuration of the task."""

    out: Annotated[
        Path | None, tyro.conf.arg(help="Folder of the run; runs/TASK-1 and so on if not given.")
    ] = None
    start: Annotated[
        Path | None,
        tyro.conf.arg(
            name="from", help="Begin as a copy of this run, and learn to read what new data have more."
        ),
    ] = None
    resume: Annotated[Path | None, tyro.conf.arg(help="Go on with this run; options given change it.")] = None
    config: Annotated[
        Path | None, tyro.conf.arg(help="TOML file with the options, as in a run's config.toml.")
    ] = None
    json: Json = False


def run(arguments: list[str]) -> int:
    """Train a task, or list the tasks."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        rows = "\n".join(f"  {name:16} {summary}" for name, (_, summary) in TASKS.items())
        write(
            f"usage: throughtime train TASK DATA ... [options]\n\ntasks:\n{rows}\n\n"
            '"throughtime train TASK --help" shows the options of a task.\n'
        )
        return 0
    task = find_task(arguments[0])
    options, config = _parse(task.config_type, arguments[0], arguments[1:])
    return train(task, options, config)


def train(task: Any, options: Options, config: Any) -> int:
    """Train and say how it went."""
    from throughtime.train.run import Run, new_folder

    console = messages()
    if options.resume is not None:
        trained = task.resume(Run.open(options.resume), config, console)
    else:
        start = None if options.start is None else Run.open(options.start)
        trained = task.train(config, options.out or new_folder(config.task), console, start)
    if options.json:
        write_json(
            {
                "run": str(trained.folder),
                "valid": trained.valid,
                "test": trained.test,
                "seconds": round(trained.seconds, 2),
                "steps": trained.steps,
            }
            | ({"parts": list(trained.parts)} if trained.parts else {})
        )
    for name, metrics in (("validation", trained.valid), ("test", trained.test)):
        if metrics:
            numbers = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in metrics.items())
            console.print(f"{name}: {numbers}", markup=False)
    if 0 < len(trained.parts) <= MOST_PARTS:
        console.print(table(trained.parts))
    if not trained.finished:
        console.print(
            f"stopped at step {trained.steps}; go on with: "
            f"throughtime train {config.task} --resume {trained.folder}",
            soft_wrap=True,
            markup=False,
        )
        return 130
    console.print(f"the run is in {trained.folder}", soft_wrap=True, markup=False)
    return 0


def _parse(config_type: type[Config], task: str, arguments: list[str]) -> tuple[Options, Any]:
    """Options, and the configuration: of its own, of a file, or of the run that goes on or is begun from."""
    file, resumed, start = (_given(arguments, option) for option in ("--config", "--resume", "--from"))
    if sum(each is not None for each in (file, resumed, start)) > 1:
        raise ConfigError("give one of --config, --resume and --from: a run has its own configuration")
    if resumed is not None and _given(arguments, "--out") is not None:
        raise ConfigError("give --out or --resume, not both: a run goes on in its own folder")
    default: Any = config_type()
    if file is not None:
        default = config_type.from_toml(file)
    elif (folder := resumed or start) is not None:
        from throughtime.train.run import Run

        default = find_task(task).read_config(Run.open(folder))
    if start is not None:  # other data are what it is for
        old = {"paths": (), "valid": (), "test": ()} | dict.fromkeys(
            {"vectors"} & default.data.model_fields_set
        )
        data = default.data.model_copy(update=old)
        default = default.model_copy(update={"data": data})

    flat: Any = Annotated[config_type, tyro.conf.arg(name="")]
    fields = [("settings", flat, dataclasses.field(default=default))]
    command_type = dataclasses.make_dataclass("Command", fields, bases=(Options,), frozen=True)
    command_type.__doc__ = TASKS[task][1]
    command = parse(command_type, f"train {task}", arguments)
    return command, command.settings


def _given(arguments: list[str], option: str) -> Path | None:
    """The value of an option, before the others can be understood."""
    for k, argument in enumerate(arguments):
        if argument == option and k + 1 < len(arguments):
            return Path(arguments[k + 1])
        if argument.startswith(f"{option}="):
            return Path(argument.partition("=")[2])
    return None
