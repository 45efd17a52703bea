"""The plan of a step: what is saved, how many regions it has, and that nothing is read before it is there."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.cells.library import CELLS
from throughtime.cells.trace import CellGraph
from throughtime.kernels.lower import postorder, row_values
from throughtime.kernels.schedule import Kind, Place, schedule


def is_row(value):
    return value in row_values(postorder((value,)))


#: What stands in a buffer before the step: at all times, or what the forward step left to the backward one.
GIVEN = {"projections", "bias", "output adjoint"}
LEFT = {"saved", "saved numbers"}


def readable(plan, program, place):
    """Whether a place can be read before the first region has run."""
    kind = program.buffers[place.buffer].kind
    if kind is Kind.STATE:
        return place.before or program.backwards
    if kind is Kind.CARRY:
        return place.before
    return (
        place.buffer in GIVEN
        or place.buffer.startswith(("vector ", "given "))
        or (program.backwards and place.buffer in LEFT)
    )


def check(plan, program):
    """Run the program on paper: the column of every place that is read exists, and was written before."""
    written: dict[Place, object] = {}

    def reads(place):
        assert place.column < program.buffers[place.buffer].columns
        assert readable(plan, program, place) or place in written, f"{place} is read before it is written"

    def finds(value, known):
        if value not in known and value.op != "constant":
            reads(program.homes[value])
            assert written.get(program.homes[value], value) is value, "another value stands there"

    def stores(those, known):
        for value, place in those:
            assert place.column < program.buffers[place.buffer].columns
            finds(value, known)
        for value, place in those:
            assert not place.before
            assert place not in written, f"{place} is written twice"
            written[place] = value

    for region in program.regions:
        known, row_known = set(), set(region.means)
        for panel in region.panels:
            for place in panel.operands:
                reads(place)
            for column in panel.columns:
                assert len(column.args) == len(panel.operands) == len(column.blocks)
                assert tuple(program.homes[arg] for arg in column.args) == panel.operands
                known.add(column)
        for value in region.values:
            for arg in value.args:
                finds(arg, known)
            assert value not in known, "a value is computed twice"
            known.add(value)
        for value in region.means:
            finds(value.args[0], known)
        for value in region.row_values:
            assert is_row(value)
            for arg in value.args:
                assert arg.op == "constant" or is_row(arg)
                finds(arg, row_known)
            row_known.add(value)
        stores(region.stores, known)
        stores(region.row_stores, row_known)
    return written


def must_write(plan, program):
    """The places that the program is there for."""
    graph = plan.graph
    if not program.backwards:
        columns = {name: program.buffers[name].columns for name in LEFT if name in program.buffers}
        saved = {Place(name, column) for name, count in columns.items() for column in range(count)}
        return saved | {Place(f"state {name}") for name in graph.states}
    return (
        {Place("deltas", column) for column in range(len(graph.maps))}
        | {Place("gradient of bias", column) for column in range(len(graph.bias_blocks))}
        | {Place(f"gradient of vector {name}") for name in graph.vectors}
        | {Place(f"carry {name}") for name in graph.states}
    )


def check_both(graph):
    plan = schedule(graph)
    for program in (plan.forward, plan.backward):
        written = check(plan, program)
        lasting = {place for place in written if not place.buffer.startswith("scratch")}
        assert lasting == must_write(plan, program)
    kept = sum(plan.forward.buffers[name].columns for name in LEFT if name in plan.forward.buffers)
    assert len(plan.saved) == kept
    return plan


def test_nothing_is_read_before_it_is_written_and_all_is_written_once(any_cell):
    check_both(any_cell.graph)


@settings(max_examples=60, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_whatever_the_equations_are(random_cell, random):
    check_both(random_cell(random).graph)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 500))
def test_whatever_many_equations_are(random_cell, seed):
    check_both(random_cell(Random(seed)).graph)


def test_the_factors_of_the_weights_gradients_last_until_the_end(any_cell):
    plan = schedule(any_cell.graph)
    lasting = {
        "saved",
        *(f"vector {name}" for name in any_cell.graph.vectors),
        *(f"state {name}" for name in any_cell.graph.states),
    }
    assert len(plan.operands) == len(any_cell.graph.recurrent_blocks)
    assert {place.buffer for place in plan.operands} <= lasting


def test_the_deltas_of_maps_of_x_stand_last_in_the_order_of_their_weights(any_cell):
    plan, inputs = schedule(any_cell.graph), any_cell.graph.input_blocks
    assert sorted(plan.deltas.values()) == list(range(len(any_cell.graph.maps)))
    first = len(any_cell.graph.maps) - len(inputs)
    assert [plan.deltas[name] for name in inputs] == list(range(first, first + len(inputs)))


def test_an_lstm_is_one_region_that_saves_its_gates_and_no_tanh_of_c():
    plan = schedule(CELLS["lstm"].graph)
    assert [len(panel.columns) for panel in plan.forward.panels] == [4]
    assert len(plan.forward.regions) == 1
    i, f, g, o = (
        next(value for value in plan.forward.regions[0].values if value.op == op and leaf in names(value))
        for op, leaf in (("sigmoid", "i"), ("sigmoid", "f"), ("tanh", "g"), ("sigmoid", "o"))
    )
    assert len(plan.saved) == 4
    assert set(plan.saved) == {i, f, g, o}


def names(value):
    """The names of the leaves that a value is made of, without those of products."""
    found = {value.name} if not value.args else set()
    return found.union(*map(names, value.args)) if value.op not in {"product", "transposed"} else set()


@pytest.mark.parametrize(
    ("name", "forward"), [("rnn", 1), ("peephole_lstm", 1), ("coupled_lstm", 1), ("gru", 1)]
)
def test_a_cell_whose_products_need_only_the_states_is_one_region(name, forward):
    assert len(schedule(CELLS[name].graph).forward.regions) == forward


def test_a_product_of_what_the_step_computes_waits_for_all_its_units():
    plan = schedule(CELLS["gru_reset_before"].graph)
    first, second = plan.forward.regions
    assert [len(panel.columns) for panel in first.panels] == [2]
    assert [len(panel.columns) for panel in second.panels] == [1]
    (operand,) = second.panels[0].operands
    assert operand in {place for _, place in first.stores}


@pytest.mark.parametrize(("name", "means"), [("layer_norm_lstm", 5), ("layer_norm_gru", 4)])
def test_a_layer_norm_takes_two_means_in_turn(name, means):
    """Of the values, then of the squares of what is left: each gate's with the others', c's after them."""
    forward = schedule(CELLS[name].graph).forward
    assert sum(len(region.means) for region in forward.regions) == 2 * means
    for earlier, later in zip(forward.regions, forward.regions[1:], strict=False):
        assert set(earlier.means).isdisjoint(later.means)
    assert len(forward.regions) == (5 if name == "layer_norm_lstm" else 3)


def test_what_is_one_number_for_a_row_is_kept_as_one():
    plan = schedule(CELLS["layer_norm_lstm"].graph)
    numbers = [value for value in plan.saved if is_row(value)]
    assert plan.forward.buffers["saved numbers"].columns == len(numbers) > 0
    assert not any(is_row(value) for value, place in plan.forward.homes.items() if place.buffer == "saved")


def test_gates_of_one_operand_are_one_panel(any_cell):
    for region in schedule(any_cell.graph).forward.regions:
        operands = [panel.operands for panel in region.panels]
        assert len(operands) == len(set(operands))


def described(plan):
    """The whole schedule with every value as the number of its first appearance."""
    numbers: dict[object, int] = {}

    def of(thing):
        if hasattr(thing, "serial"):
            if thing not in numbers:
                args = [of(arg) for arg in thing.args]
                numbers[thing] = len(numbers)
                return thing.op, args, thing.name, thing.number, thing.blocks
            return numbers[thing]
        if isinstance(thing, dict):
            return [(of(key), of(value)) for key, value in thing.items()]
        if isinstance(thing, tuple | list):
            return [of(item) for item in thing]
        if hasattr(thing, "__dataclass_fields__"):
            return [of(getattr(thing, name)) for name in thing.__dataclass_fields__]
        return str(thing)

    return [of(part) for part in (plan.forward, plan.backward, plan.operands, plan.deltas, plan.saved)]


def test_a_graph_read_from_its_text_has_the_same_text_and_the_same_schedule(any_cell):
    again = CellGraph.from_text(any_cell.graph.text)
    assert again.text == any_cell.graph.text
    assert again.weight_shapes(3, 5) == any_cell.graph.weight_shapes(3, 5)
    assert described(schedule(again)) == described(schedule(any_cell.graph))
