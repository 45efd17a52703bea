"""The table of cells."""

import subprocess
import sys

import pytest

from throughtime.cells.cell import Cell
from throughtime.cells.library import CELLS, find_cell
from throughtime.errors import CellError

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def test_every_name_leads_to_the_cell_of_that_name():
    assert CELLS
    for name, cell in CELLS.items():
        assert name == cell.name
        assert find_cell(name) is cell


@every_cell
def test_every_cell_has_a_title_and_a_source(cell):
    assert cell.title[0].isupper()
    assert not cell.title.endswith(".")
    assert cell.source[-4:].isdigit() or ":" in cell.source, "the source ends with the year of the paper"


@every_cell
def test_every_cell_takes_x_and_its_own_states(cell):
    assert cell.graph.input_blocks
    assert cell.graph.states == cell.states
    read = {node.name for node in cell.graph.nodes if node.op == "state"}
    assert set(cell.states[1:]) <= read <= set(cell.states), "only the output may be no more than that"


@pytest.mark.parametrize(("typed", "near"), [("lsmt", "lstm"), ("GRU", "gru"), ("peephole", "peephole_lstm")])
def test_an_unknown_cell_is_answered_with_near_names(typed, near):
    with pytest.raises(CellError) as caught:
        find_cell(typed)
    message = str(caught.value)
    assert f'there is no cell "{typed}"' in message
    suggested = message.partition("did you mean ")[2].partition("?")[0].split(", ")
    assert near in suggested
    assert len(suggested) <= 3


def test_a_name_near_to_none_is_answered_with_all():
    with pytest.raises(CellError, match=", ".join(CELLS)):
        find_cell("transformer")


def test_cells_are_described_without_torch():
    code = (
        "import sys, throughtime.cells.library, throughtime.cells.formula\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


OWN = """
from throughtime.cells import cell, tanh

@cell(state="h")
def mine(x, s, w):
    return tanh(w.h(x, s.h))

yours = mine.variant("yours", "Yours (you 2026).", recurrent="identity")
number = 3
"""


def test_a_cell_is_loaded_from_a_file(tmp_path):
    path = tmp_path / "cells of mine.py"
    path.write_text(OWN)
    cell = find_cell(f"{path}:mine")
    assert isinstance(cell, Cell) and cell.name == "mine" and cell.graph.input_blocks == ("h",)
    yours = find_cell(f"{path}:yours")
    assert yours.initial.recurrent == "identity" and yours.graph.states == ("h",)


@pytest.mark.parametrize(
    ("source", "place", "said"),
    [
        (OWN, "own.py", '"own.py" names no cell: give the file and the cell, as in mycells.py:my_cell'),
        (OWN, "own.py:", '"own.py:" names no cell'),
        (OWN, "other.py:mine", "other.py is not a file"),
        (OWN, "own.py:theirs", "own.py has no theirs: its cells are mine, yours"),
        (OWN, "own.py:number", "own.py defines number as int, not a cell: its cells are mine, yours"),
        ("", "own.py:mine", "its cells are none"),
        ("def (", "own.py:mine", "own.py cannot be run: SyntaxError"),
        ("import nowhere", "own.py:mine", "own.py cannot be run: ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "own.py:mine", "own.py cannot be run: SystemExit"),
        (OWN.replace("tanh(w.h(x, s.h))", "x + s.h"), "own.py:mine", 'cell "mine", line 6 of'),
    ],
)
def test_what_is_no_cell_in_a_file_is_said(tmp_path, monkeypatch, source, place, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(CellError) as caught:
        find_cell(place)
    assert said in str(caught.value)
    assert "CellError" not in str(caught.value)
