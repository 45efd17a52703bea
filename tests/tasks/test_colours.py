"""Colours of names: what a small model learns of them, and distances by known values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from throughtime.errors import ConfigError, DataError, RunError
from throughtime.tasks.colours import Colours, draw_swatches, from_lab, to_lab
from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask
from throughtime.tasks.table import load

BASE = {"red": "#e01010", "blue": "#1010e0", "green": "#10e010"}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    return written(tmp_path_factory.mktemp("colours"))


def written(folder, spell=str):
    path = folder / "names.csv"
    kinds = ["pale", "deep", "warm", "cold", "old", "new", "my"]
    rows = [f"{kind} {name},{spell(code)}" for kind in kinds for name, code in BASE.items()]
    path.write_text("\n".join(["name,hex", *rows * 4]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(names):
    return trained(names)


def trained(names, **data):
    config = LanguageModelConfig(
        data={"paths": (names,), "columns": ("name", "hex"), **data},
        model={"hidden": 32, "dropout": 0.0},
        training={"max_epochs": 30, "batch_size": 4, "learning_rate": 0.02},
    )
    LanguageModelTask.train(config, names.parent / "run", Console(quiet=True))
    return names.parent / "run"


@pytest.fixture(scope="module")
def colours(run):
    return Colours(load(run))


def test_names_have_their_colours(colours):
    for name, code in BASE.items():
        found = colours.of(f"warm  {name}")
        assert found["likeliest"] == code and 0.5 < found["probability"] <= 1
        assert np.linalg.norm(to_lab([found["colour"]]) - to_lab([code])) < 15 + found["spread"]
    assert colours.of("warm red") == colours.of("warm red")


def test_invented_names_are_repeatable(colours):
    first, again, other = (colours.invent(3, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(each["name"] and len(each["colour"]) == 7 for each in first)


def test_distances(colours, names, tmp_path):
    metrics = colours.measure([names])
    assert metrics["likeliest_delta_e"] < 5 < 50 < metrics["mean_colour_delta_e"]
    assert metrics["delta_e"] < metrics["mean_colour_delta_e"] / 2
    (tmp_path / "bad.csv").write_text("name,hex\nred,#12345\n")
    with pytest.raises(DataError, match=r"bad\.csv, line 2: '#12345' is no colour: give it as #c93f38"):
        colours.measure([tmp_path / "bad.csv"])


def test_a_name_is_needed(colours):
    with pytest.raises(DataError, match="give a name"):
        colours.of("  ")
    with pytest.raises(ConfigError, match="temperature must be 0 or more"):
        colours.invent(1, temperature=-1)


def test_a_model_without_colours_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no colours\n" * 30)
    config = LanguageModelConfig(
        data={"paths": (tmp_path / "a.txt",)}, model={"hidden": 4}, training={"max_epochs": 1}
    )
    LanguageModelTask.train(config, tmp_path / "run", Console(quiet=True))
    with pytest.raises(RunError, match="this model knows no colours: give a run of train language-model"):
        Colours(load(tmp_path / "run"))


@pytest.mark.parametrize(
    ("spell", "data"),
    [(str.upper, {}), (lambda code: code[1:], {}), (lambda code: code[:4], {}), (str, {"tokens": "bpe"})],
    ids=["capitals", "bare", "short", "other tokens"],
)
def test_codes_of_another_spelling_are_refused(tmp_path, spell, data):
    run = trained(written(tmp_path, spell), **data)
    with pytest.raises(RunError, match="this model knows no colours: give a run of train language-model"):
        Colours(load(run))


def test_names_are_measured_as_they_were_trained(colours, tmp_path, monkeypatch):
    (tmp_path / "odd.jsonl").write_text(
        '{"name": " warm \\n red", "hex": "#e01010"}\n{"name": null, "hex": "#1010e0"}\n'
    )
    asked = []
    of = colours._of
    monkeypatch.setattr(colours, "_of", lambda name: asked.append(name) or of(name))
    colours.measure([tmp_path / "odd.jsonl"])
    assert asked == ["warm red", ""]


def test_a_model_that_ends_at_once_is_no_traceback(colours, monkeypatch):
    monkeypatch.setattr(colours.task, "stream", lambda *arguments, **options: iter(()))
    with pytest.raises(ConfigError, match="begins with a name: train longer"):
        colours.invent(1)


def test_lab_of_known_colours():
    known = {
        "#ffffff": (100, 0, 0),
        "#000000": (0, 0, 0),
        "#ff0000": (53.24, 80.09, 67.20),
        "#0000ff": (32.30, 79.19, -107.86),
    }
    np.testing.assert_allclose(to_lab(list(known)), list(known.values()), atol=0.02)
    assert from_lab(np.array([50.0, 200.0, 0.0])).startswith("#ff")  # outside of sRGB


@given(st.integers(0, 0xFFFFFF))
def test_lab_and_back(number):
    assert from_lab(to_lab([f"#{number:06x}"])[0]) == f"#{number:06x}"


def test_swatches_carry_names_and_codes():
    answers = [{"name": f"name {k} $x$", "colour": f"#00000{k}"} for k in range(5)]
    figure = draw_swatches(answers)
    shown = [axes.get_xlabel() for axes in figure.axes if axes.axison]
    assert shown == [f"name {k} $x$\n#00000{k}" for k in range(5)]
    assert figure.axes[3].get_facecolor() == pytest.approx((0, 0, 3 / 255, 1))
