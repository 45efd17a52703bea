"""The table of cells."""

import subprocess
import sys

import pytest

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
    assert {node.name for node in cell.graph.nodes if node.op == "state"} == set(cell.states)


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
