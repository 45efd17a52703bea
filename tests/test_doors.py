"""The doors of the packages: `__all__` lists what they give, and nothing else comes with it."""

import ast
import importlib
from pathlib import Path

import pytest

import throughtime

ROOT = Path(throughtime.__file__).parent
PACKAGES = {
    ".".join(["throughtime", *path.parent.relative_to(ROOT).parts]): path
    for path in sorted(ROOT.rglob("__init__.py"))
}
every_package = pytest.mark.parametrize("package", PACKAGES)


def listed(package: str) -> list[str]:
    return getattr(importlib.import_module(package), "__all__", [])


def names_from_here(path: Path) -> set[str]:
    """The public names that a file takes from this package or makes itself, read from its source."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "throughtime":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return {name for name in names if not name.startswith("_")}


def test_every_package_is_looked_at():
    assert {"throughtime", "throughtime.cells", "throughtime.data", "throughtime.nn"} <= set(PACKAGES)


@every_package
def test_every_name_in_the_list_can_be_imported(package):
    module = importlib.import_module(package)
    for name in listed(package):
        assert getattr(module, name) is not None


@every_package
def test_no_name_is_listed_twice(package):
    assert len(set(listed(package))) == len(listed(package))


@every_package
def test_the_list_is_all_that_the_door_gives(package):
    by_hand = {"load"} if package == "throughtime" else set()
    assert set(listed(package)) == names_from_here(PACKAGES[package]) | by_hand


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'throughtime' has no attribute 'nothing'"):
        throughtime.nothing  # noqa: B018
