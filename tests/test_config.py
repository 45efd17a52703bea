"""Configurations: what they refuse, the file they are written to, and what each field says of itself."""

import typing
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from throughtime.config import ChoiceConfig, Config
from throughtime.errors import ConfigError
from throughtime.tasks.table import TASKS, find_task


class Part(Config):
    size: int = Field(3, ge=1)
    rate: float = Field(0.5, ge=0)
    kind: Literal["one", "two"] = "one"


class Whole(Config):
    name: str = "a"
    flag: bool = False
    paths: tuple[Path, ...] = ()
    batch_size: int | None = Field(None, ge=1)
    part: Part = Part()


class Kinds(ChoiceConfig):
    choice = "kind"
    read_by: ClassVar = {"size": ("one", "three"), "rate": ("two",)}
    kind: Literal["one", "two", "three"] = "one"
    size: int = 3
    rate: float = 0.5


class Needy(Config):
    needed: int


def saved(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**values) -> str:
    with pytest.raises(ConfigError) as caught:
        Whole(**values)
    return str(caught.value)


# What is refused.


def test_an_option_that_the_choice_does_not_read_is_refused():
    assert Kinds(size=4).size == Kinds(kind="three", size=4).size == 4
    assert Kinds(kind="two", size=3, rate=0.1).rate == 0.1
    with pytest.raises(ConfigError) as caught:
        Kinds(kind="two", size=4)
    assert str(caught.value) == (
        "--size is not read with --kind two: leave it at 3, or take --kind one or three"
    )
    with pytest.raises(ConfigError, match=r"^--rate is not read with --kind one"):
        Kinds(rate=0.4)


def test_a_table_of_readers_names_options_and_choices_that_there_are():
    for task in TASKS:
        for part in ("data", "model"):
            kind = find_task(task).config_type.model_fields[part].annotation
            if issubclass(kind, ChoiceConfig):
                choices = typing.get_args(kind.model_fields[kind.choice].annotation)
                assert kind.read_by.keys() <= kind.model_fields.keys()
                assert {choice for readers in kind.read_by.values() for choice in readers} <= set(choices)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": 0}, "batch-size: input should be greater than or equal to 1, got 0"),
        ({"flag": "x"}, "flag: input should be a valid boolean, unable to interpret input, got 'x'"),
        ({"batchsize": 3}, "batchsize: extra inputs are not permitted, got 3"),
        ({"part": {"size": -1}}, "size: input should be greater than or equal to 1, got -1"),
        ({"part": {"kind": "three"}}, "kind: input should be 'one' or 'two', got 'three'"),
        ({"part": {"unknown_option": 1}}, "unknown-option: extra inputs are not permitted, got 1"),
    ],
)
def test_impossible_values_are_named_as_the_command_line_names_them(values, said):
    assert refusal(**values).endswith(said)
    assert "\n" not in refusal(**values)


def test_a_value_that_is_missing():
    with pytest.raises(ConfigError, match=r"^needed: field required$"):
        Needy()


def test_a_configuration_is_frozen():
    whole = Whole()
    with pytest.raises(ValidationError, match="frozen"):
        whole.name = "b"
    with pytest.raises(ValidationError, match="frozen"):
        whole.part.size = 9
    assert hash(whole) == hash(Whole())


# The file.

wholes = st.builds(
    Whole,
    name=st.text(st.characters(exclude_categories=["Cs"])),
    flag=st.booleans(),
    paths=st.lists(st.text("ab /.é\\\"'", min_size=1).map(Path), max_size=3).map(tuple),
    batch_size=st.none() | st.integers(1, 2**62),
    part=st.builds(
        Part,
        size=st.integers(1, 99),
        rate=st.floats(0, allow_nan=False),
        kind=st.sampled_from(["one", "two"]),
    ),
)


@given(whole=wholes)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, whole):
    path = saved(tmp_path_factory.getbasetemp(), whole.to_toml())
    assert Whole.from_toml(path) == whole


def test_what_a_file_leaves_out_keeps_its_default(tmp_path):
    path = saved(tmp_path, 'name = "b"\n[part]\nsize = 7\n')
    assert Whole.from_toml(path) == Whole(name="b", part=Part(size=7))
    assert Whole.from_toml(saved(tmp_path, "")) == Whole()


def test_none_is_left_out_of_the_file():
    assert "batch_size" not in Whole().to_toml()
    assert "batch_size = 4" in Whole(batch_size=4).to_toml()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "is not TOML: "),
        ("name = 1\nname = 2", "is not TOML: "),
        ("nme = 'b'", "nme: extra inputs are not permitted, got 'b'"),
        ("batch_size = 0", "batch-size: input should be greater than or equal to 1, got 0"),
        ("[part]\nsize = 0", "size: input should be greater than or equal to 1, got 0"),
        ("part = 3", "part: "),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text, said):
    path = saved(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Whole.from_toml(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read: No such file or directory"):
        Whole.from_toml(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Whole.from_toml(tmp_path)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"config\.toml is not TOML: 'utf-8' codec"):
        Whole.from_toml(path)


# The configurations of the tasks.


def parts_of(kind: type[Config]) -> dict[str, type[Config]]:
    """A configuration and all those inside it, by the names of their fields."""
    found = {"": kind}
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            found |= {f"{name}.{inner}": part for inner, part in parts_of(field.annotation).items()}
    return found


def field_of(task, part, name):
    return parts_of(find_task(task).config_type)[part].model_fields[name]


def kinds_of(task, part, name) -> set[type]:
    annotation = field_of(task, part, name).annotation
    return set(typing.get_args(annotation)) or {annotation}


def each(fields):
    return pytest.mark.parametrize(
        ("task", "part", "name"),
        [pytest.param(*field, id=f"{field[0]}-{field[1]}{field[2]}") for field in fields],
    )


FIELDS = [
    (task, part, name)
    for task in TASKS
    for part, kind in parts_of(find_task(task).config_type).items()
    for name, field in kind.model_fields.items()
    if name != "task" and not isinstance(field.default, Config)
]
every_field = each(FIELDS)
every_number = each(field for field in FIELDS if kinds_of(*field) & {int, float})
every_field_that_may_be_none = each(field for field in FIELDS if type(None) in kinds_of(*field))


def with_value(task, part, name, value):
    """The configuration of a task with one value changed."""
    values = {name: value}
    for outer in reversed(part.split(".")[:-1]):
        values = {outer: values}
    return find_task(task).config_type(**values)


@every_field
def test_every_field_says_what_it_is_in_one_line(task, part, name):
    description = field_of(task, part, name).description
    assert description
    assert description.endswith(".")
    assert "\n" not in description


@every_field
def test_the_default_of_every_field_is_possible_and_comes_back(tmp_path, task, part, name):
    config = with_value(task, part, name, field_of(task, part, name).default)
    assert config == find_task(task).config_type()
    assert type(config).from_toml(saved(tmp_path, config.to_toml())) == config


@every_number
def test_every_number_has_a_bound(task, part, name):
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        with_value(task, part, name, -1)


@every_field_that_may_be_none
def test_none_comes_back_where_it_is_possible(tmp_path, task, part, name):
    """TOML has no word for none: a field that is left out of the file must mean none."""
    config = with_value(task, part, name, None)
    assert type(config).from_toml(saved(tmp_path, config.to_toml())) == config
