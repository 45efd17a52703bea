"""The forecaster as a person uses it: tables of every shape, splits, baselines, errors that name the row."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console
from toys import toy_run

import throughtime
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.forecaster import ForecasterConfig, ForecasterTask
from throughtime.train.forecasts import naive, point_metrics
from throughtime.train.run import Run

SMALL = {
    "model": {"hidden": 8, "horizon": 4, "context": 8},
    "search": {"samples": 5},
    "training": {"max_epochs": 1, "batch_size": 32},
}


def hours(count, start="2024-03-01T00", columns="value", row=lambda k: f"{np.sin(k * np.pi / 12):.4f}"):
    times = np.datetime64(start, "h") + np.arange(count)
    return f"time,{columns}\n" + "".join(f"{time}:00,{row(k)}\n" for k, time in enumerate(times))


def config(data, model=(), search=(), training=()):
    return ForecasterConfig(
        data=data,
        model=SMALL["model"] | dict(model),
        search=SMALL["search"] | dict(search),
        training=SMALL["training"] | dict(training),
    )


def train(folder, data, **parts):
    ForecasterTask.train(config(data, **parts), folder / "run", Console(quiet=True))
    return throughtime.load(folder / "run")


def test_dates_make_a_calendar_and_a_season_and_forecasts_have_times(tmp_path):
    path = tmp_path / "hours.csv"
    path.write_text(hours(200))
    task = train(tmp_path, {"paths": (path,), "time": "time"}, search={"levels": (0.1, 0.9)})
    assert task.framing.season == 24 and task.framing.lags == (24,)
    assert task.framing.cycles == ("hour", "weekday", "monthday", "yearday")
    [answer] = task.answer(list(task.inputs(path)))
    assert answer["times"] == [f"2024-03-09T{8 + k:02}:00:00" for k in range(4)]
    found = answer["forecast"]["value"]
    assert found.keys() == {"point", "0.1", "0.9"} and len(found["point"]) == 4
    assert all(low <= high for low, high in zip(found["0.1"], found["0.9"], strict=True))
    assert "2024-03-09T08:00:00  value " in task.show(answer)
    assert len(task.draw(answer).axes) == 1
    with pytest.raises(DataError, match="this model reads dates"):
        task.answer(["1 2 3"])


def test_what_is_known_before_must_reach_over_the_horizon(tmp_path):
    """The value is the price of its step: with the price of the future a forecast can be exact."""
    random = np.random.default_rng(0)
    prices = random.normal(size=400)

    def table(count, empty=0):
        rows = ["step,sold,price,size"]
        for k in range(count):
            sold = f"{prices[k]:.4f}" if k < count - empty else ""
            rows.append(f"{k},{sold},{prices[k]:.4f},3")
        return "\n".join(rows) + "\n"

    path, short, whole = tmp_path / "data.csv", tmp_path / "short.csv", tmp_path / "whole.csv"
    path.write_text(table(400))
    short.write_text(table(300))
    whole.write_text(table(304, empty=4))
    roles = {"time": "step", "targets": ("sold",), "known": ("price",), "static": ("size",)}
    task = train(tmp_path, {"paths": (path,)} | roles, training={"max_epochs": 60, "learning_rate": 0.02})
    [answer] = task.answer(list(task.inputs(whole)))
    assert task.evaluate((path,))["mse"] < 0.1  # that of the best forecast from the past alone is 1
    assert answer["forecast"]["sold"]["point"][:3] == pytest.approx(prices[300:303], abs=0.2)
    with pytest.raises(DataError, match="needs numbers of what is known before for the 4 steps after 299"):
        task.answer(list(task.inputs(short)))


def test_a_backtest_forecasts_again_and_again_beside_simple_forecasts(tmp_path):
    path = tmp_path / "data.csv"
    random = np.random.default_rng(0)
    values = random.normal(10, 1, 100).round(3)
    path.write_text("value\n" + "\n".join(map(str, values)) + "\n")
    data = {"paths": (path,), "season": 3, "test_steps": 20, "valid_steps": 10}
    task = train(tmp_path, data)
    corpus = task.read(task.config)
    assert [len(part.series[0]) for part in corpus] == [70, 80, 100]
    report = task.measure(task.encode(corpus.test))
    names = [row["forecast"] for row in report.parts]
    assert names == ["model", "naive", "seasonal naive", "Naive2"]
    for row, season in ((report.parts[1], 1), (report.parts[2], 3)):
        each = [
            point_metrics(values[t : t + 4], naive(values[:t], 4, season), values[:t], 3)
            for t in range(80, 97, 4)
        ]
        for key in ("mse", "mae", "smape", "mase"):
            assert row[key] == pytest.approx(np.mean([one[key] for one in each]))
    assert report.metrics["mse"] == pytest.approx(report.parts[0]["mse"])
    assert report.metrics["mse_scaled"] == pytest.approx(report.metrics["mse"] / values[:70].var())
    assert {"crps", "coverage_50", "coverage_90"} <= report.metrics.keys()
    assert (tmp_path / "run" / "forecast.png").stat().st_size > 10_000
    task.config = config(data, search={"stride": 1})
    assert len(task.encode(corpus.test).origins) == 17


def test_rows_that_other_files_go_on_with(tmp_path):
    random = np.random.default_rng(0)
    values = {f"H{k}": random.normal(5, 1, 40 + k).round(3).tolist() for k in range(3)}
    first, rest = tmp_path / "train.csv", tmp_path / "test.csv"
    columns = ",".join(f"V{k}" for k in range(43))
    padded = {name: [*map(str, v[:-6]), *[""] * (48 - len(v))] for name, v in values.items()}
    first.write_text("\n".join([columns, *(f"{n},{','.join(v)}" for n, v in padded.items())]))
    columns = ",".join(f"V{k}" for k in range(7))
    rest.write_text("\n".join([columns, *(f"{n},{','.join(map(str, v[-6:]))}" for n, v in values.items())]))
    data = {"paths": (first,), "test": (rest,), "layout": "rows", "continues": True, "valid_steps": 4}
    found = ForecasterTask.read(config(data))
    assert [len(one) for one in found.train.series] == [30, 31, 32]
    assert found.test.starts == [34, 35, 36] and found.valid.starts == [30, 31, 32]
    for one in found.test.series:
        assert one.values[:, 0].tolist() == values[one.name]
    rest.write_text(rest.read_text().replace("H1", "H9"))
    with pytest.raises(DataError, match='there is no series "H9" that it could go on with'):
        ForecasterTask.read(config(data))


def test_whole_series_are_kept_apart_and_files_name_them(tmp_path):
    paths = []
    for scene in ("one", "two"):
        path = tmp_path / f"{scene}.txt"
        rows = [f"{10 * t}\t{who}\t{t * who}\t{-t}" for who in range(1, 11) for t in range(25)]
        path.write_text("\n".join(rows) + "\n")
        paths.append(path)
    data = {"paths": tuple(paths), "time": "1", "series": "2", "targets": ("3", "4"), "positions": True}
    model = {
        "horizons": "recursive",
        "relative": "previous",
        "scale": "step",
        "centre": "last",
        "head": "mixture",
        "components": 2,
    }
    task = train(tmp_path, data | {"split": "series", "test_share": 0.2}, model=model)
    corpus = task.read(task.config)
    assert [len(part) for part in corpus] == [14, 2, 4]
    names = {one.name for part in corpus for one in part.series}
    assert len(names) == 20 and {"one 3", "two 10"} <= names
    report = task.measure(task.encode(corpus.test))
    assert {"ade", "fde", "ade_best_of_5"} <= report.metrics.keys()
    best = []
    for origin in (encoded := task.encode(corpus.test)).origins:
        paths = task._draw(encoded.windows, origin, 5)
        true = encoded.part.series[origin.series].values[origin.step : origin.step + 4]
        best.append(np.linalg.norm(paths - true, axis=-1).mean(1).min())
    assert report.metrics["ade_best_of_5"] == pytest.approx(np.mean(best))
    rows = {row["forecast"]: row for row in report.parts}
    assert rows["constant velocity"]["ade"] == pytest.approx(0, abs=1e-9)
    assert rows["linear"]["fde"] == pytest.approx(0, abs=1e-9)
    assert rows["naive"]["ade"] > 1
    [answer] = task.answer(["0,0 1,1 2,2"])
    assert answer["forecast"].keys() == {"3", "4"}
    with pytest.raises(DataError, match='give numbers as "3,4 3,4'):
        task.answer(["0 1 2"])


def test_options_that_do_not_fit_each_other_are_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "".join(f"{t},{t % 7}\n" for t in range(80)))
    data = {"paths": (path,), "season": 7, "targets": ("a",)}
    for model in ({}, {"relative": "season", "lags": ()}):
        with pytest.raises(ConfigError, match="show values without the --noise"):
            train(tmp_path / "no", data, model=model, training={"noise": 0.1})
    positions = {"paths": (path,), "targets": ("a", "b"), "positions": True}
    for model in ({"centre": "global"}, {"scale": "mean"}):
        with pytest.raises(ConfigError, match="depend on where the coordinates begin"):
            train(tmp_path / "no", positions, model=model)


def test_training_is_noisy_where_it_was_asked_for(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a\n" + "".join(f"{t % 9}\n" for t in range(300)))
    task = train(tmp_path, {"paths": (path,)}, model={"lags": ()}, training={"noise": 0.5, "max_epochs": 1})
    corpus = task.read(task.config)
    noisy = task.batches(corpus.train)
    values = torch.cat(
        [noisy.batch(k, 0).values + noisy.batch(k, 0).centre[:, None] for k in range(len(noisy))]
    )
    assert 0.1 < (values - values.round()).abs().amax((1, 2)).gt(1e-3).float().mean() < 0.4


def test_counts_stay_counts(tmp_path):
    path = tmp_path / "data.csv"
    random = np.random.default_rng(0)
    path.write_text("sold\n" + "\n".join(map(str, random.poisson(4, 80))) + "\n")
    counts = {"head": "negative-binomial", "centre": "zero", "scale": "mean"}
    task = train(tmp_path, {"paths": (path,)}, model=counts)
    task.config = config({"paths": (path,)}, model=counts, search={"samples": 100})
    found = task.answer(["3 4 5"])[0]["forecast"]["value"]
    for level in ("0.05", "0.5", "0.95"):
        assert all(value == round(value) and value >= 0 for value in found[level])
    path.write_text(path.read_text() + "2.5\n")
    with pytest.raises(DataError, match=r"is 2.5 at 80, which is no count"):
        ForecasterTask.read(config({"paths": (path,)}, model=counts))


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (
            "value\n" + "1\n" * 9,
            {"valid_share": 0.4},
            r"no window of 8 \+ 4 steps, .* with 5 .*longer series",
        ),
        (
            "value\n" + "1\n" * 20,
            {},
            "20, 2 of them kept apart .* keep more apart",
        ),
        ("a,b\n1,2\n", {}, "which columns are to be forecast\\? Give --targets; there are a, b"),
        ("a\nx\n", {}, r"data.csv, line 2: a is 'x', which is no number"),
        ("a\ninf\n", {}, "give finite numbers"),
        ("a\n1\n\n", {"targets": ("b",)}, 'no column "b"'),
        ("t,a\n1,2\n1,3\n", {"time": "t"}, "line 3: .* has a row of 1 already"),
        (
            "t,a\n1,2\n2,\n3,4\n",
            {"time": "t"},
            "1 numbers are missing .* --missing interpolate, previous",
        ),
        ("t,a\n1,2\n3,3\n4,4\n5,5\n", {"time": "t"}, "--missing interpolate"),
        ("a,b\n1,2\n", {"layout": "wide", "targets": ("a",)}, "has no columns of other kinds"),
        ("a\n" + "1\n" * 30, {"positions": True}, "--positions is for two targets, x and y, got 1"),
        ("a\n" + "1\n" * 30, {"calendar": ("hour",)}, "a calendar knows dates"),
    ],
)
def test_bad_data_are_named(tmp_path, text, data, message):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises((DataError, ConfigError), match=message):
        train(tmp_path, {"paths": (path,)} | data)
    assert not (tmp_path / "run").exists()


def test_series_too_short_and_constant_are_counted(tmp_path, caplog):
    path = tmp_path / "data.csv"
    rows = (
        [f"{k},a,{k % 3}" for k in range(40)] + [f"{k},b,7" for k in range(40)] + ["0,c,1", "1,c,2", "2,c,1"]
    )
    path.write_text("t,who,y\n" + "\n".join(rows) + "\n")
    task = train(tmp_path, {"paths": (path,), "time": "t", "series": "who", "split": "time"})
    assert "1 of 3 series never change, the first is b" in caplog.text
    assert "1 of 3 series have no window of 8 + 4 steps, the first is c with 2" in caplog.text
    [answer] = task.answer(["5 5 5 5 5"])
    assert np.isfinite(answer["forecast"]["value"]["point"]).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"relative": "previous"}, "take --horizons recursive"),
        ({"scheduled_sampling": 0.5}, "take --horizons recursive"),
        ({"head": "negative-binomial"}, "take --centre zero"),
        ({"components": 3}, "--components is not read with --head student-t"),
        ({"lags": (0,)}, "numbers of steps from 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(model, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        config({}, model=model)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"targets": ("a",), "known": ("a",)}, 'column "a" has two uses'),
        ({"targets": ("a", "a")}, 'column "a" has two uses'),
        ({"split": "series", "valid_steps": 3}, "--valid-steps is of --split time"),
        ({"test": ("x.csv",), "test_steps": 3}, "--test-steps is not read where there are files"),
        ({"continues": True}, "--continues is of files"),
    ],
)
def test_splits_and_columns_that_do_not_fit_are_refused(data, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        config(data)


def test_a_run_that_is_begun_from_keeps_how_it_looks_at_series(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("value\n" + "\n".join(f"{k % 5}" for k in range(80)) + "\n")
    train(tmp_path, {"paths": (path,)})
    for name, value in {"context": 9, "lags": (2,), "centre": "last", "scale": "step"}.items():
        other = config({"paths": (path,)}, model={name: value})
        with pytest.raises(ConfigError, match=f"--{name} was .* and cannot become"):
            ForecasterTask.train(other, tmp_path / "new", Console(quiet=True), Run.open(tmp_path / "run"))


def test_series_of_other_steps_are_refused(tmp_path):
    path, days = tmp_path / "hours.csv", tmp_path / "days.csv"
    path.write_text(hours(200))
    times = np.datetime64("2024-03-01", "D") + np.arange(60)
    days.write_text("time,value\n" + "".join(f"{time},{k % 7}\n" for k, time in enumerate(times)))
    task = train(tmp_path, {"paths": (path,), "time": "time"})
    with pytest.raises(DataError, match=r"line 2: .* has steps of 86400 seconds, .* of 3600 s"):
        task.inputs(days)
    with pytest.raises(DataError, match="has steps of 86400 seconds"):
        task.evaluate((days,))


def test_missing_numbers_are_filled_and_measured_nowhere(tmp_path):
    path = tmp_path / "data.csv"
    rows = [f"{k},{'' if k in (95, 97) else k % 5}" for k in range(100)]
    path.write_text("t,y\n" + "\n".join(rows) + "\n")
    data = {"paths": (path,), "time": "t", "test_steps": 8, "valid_steps": 8}
    task = train(tmp_path, data | {"missing": "previous"})
    corpus = task.read(task.config)
    report = task.measure(task.encode(corpus.test))
    naive_row = next(row for row in report.parts if row["forecast"] == "naive")
    # From step 92, where 91 was 1: 92, 93, 94 and from 96, where 95 is held at 4: 96, 98, 99.
    first, second = [(2 - 1) ** 2, (3 - 1) ** 2, (4 - 1) ** 2], [(1 - 4) ** 2, (3 - 4) ** 2, (4 - 4) ** 2]
    assert naive_row["mse"] == pytest.approx((np.mean(first) + np.mean(second)) / 2)


def test_quantiles_further_out_than_a_model_has_are_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("value\n" + "\n".join(f"{k % 5}" for k in range(80)) + "\n")
    task = train(tmp_path, {"paths": (path,)}, model={"head": "quantiles"})
    task.config = config({"paths": (path,)}, model={"head": "quantiles"}, search={"levels": (0.01, 0.5)})
    with pytest.raises(ConfigError, match=r"knows those from 0.05 to 0.95, and --levels asks for 0.01, 0.5"):
        task.answer(["1 2 3"])


def test_the_command_line(tmp_path):
    run = toy_run("forecaster", tmp_path)
    data = tmp_path / "data.csv"

    def command(*arguments):
        made = [sys.executable, "-m", "throughtime.cli.main", *map(str, arguments)]
        return subprocess.run(made, capture_output=True, text=True, check=False)

    found = command("predict", run, "--file", data, "--samples", 3, "--levels", 0.2, 0.8, "--json")
    assert found.returncode == 0, found.stderr
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    assert [answer["series"] for answer in answers] == ["a", "b"]
    assert answers[0]["forecast"]["value"].keys() == {"point", "0.2", "0.8"}
    picture = tmp_path / "fan.png"
    found = command("predict", run, "1 2 3 4 5 6 7 8", "--plot", picture)
    assert found.returncode == 0 and picture.stat().st_size > 5000
    found = command("evaluate", run, data, "--stride", 3, "--json")
    result = json.loads(found.stdout)
    assert result["metrics"]["mse_scaled"] < 0.01
    assert [row["forecast"] for row in result["parts"]] == ["model", "naive", "seasonal naive", "Naive2"]
    found = command("evaluate", run, data)
    assert "seasonal naive" in found.stdout and "mase" in found.stdout
    found = command("predict", run, "one two")
    assert found.returncode == 2 and 'give numbers as "value value ..."' in found.stderr
    found = command("train", "forecaster", data, "--json", "--out", tmp_path / "new", "--series", "who",
                    "--time", "step", "--max-epochs", 1, "--horizon", 4, "--samples", 3)  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "naive" in found.stderr
    assert [row["forecast"] for row in json.loads(found.stdout)["parts"]][:2] == ["model", "naive"]
    assert Run(tmp_path / "new").config.exists()
