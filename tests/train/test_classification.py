"""Metrics of classification: by hand, against torchmetrics, and by their definitions; and the figure."""

import io
import itertools
import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import classification as oracle

from throughtime.errors import ShapeError
from throughtime.train.classification import (
    Calibration,
    calibrate,
    class_metrics,
    class_rows,
    confusion_matrix,
    label_rows,
    multi_label_metrics,
)
from throughtime.train.confusion import draw_confusion

seeds, sizes = st.integers(0, 10_000), st.integers(1, 40)


def problem(seed, rows, classes):
    """Probabilities and targets; some classes may never occur."""
    torch.manual_seed(seed)
    probs = (2 * torch.randn(rows, classes, dtype=torch.float64)).softmax(1)
    return probs, torch.randint(classes, (rows,)) * torch.randint(2, (rows,))


def certain(predicted, classes):
    return torch.eye(classes, dtype=torch.float64)[torch.tensor(predicted)]


# One class.


def test_numbers_worked_by_hand():
    """Four of class 0, of which three are found; two of class 1, both found; one of class 2, taken for 0."""
    targets, predicted = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 1, 0]
    metrics, confusion = class_metrics(certain(predicted, 3), torch.tensor(targets))
    assert confusion.tolist() == [[3, 1, 0], [0, 2, 0], [1, 0, 0]]
    rows = class_rows(confusion, ["a", "b", "c"])
    assert [row["class"] for row in rows] == ["a", "b", "c"]
    assert [row["precision"] for row in rows] == pytest.approx([3 / 4, 2 / 3, 0])
    assert [row["recall"] for row in rows] == pytest.approx([3 / 4, 1, 0])
    assert [row["f1"] for row in rows] == pytest.approx([3 / 4, 4 / 5, 0])
    assert [row["support"] for row in rows] == [4, 2, 1]
    assert metrics == pytest.approx(
        {"accuracy": 5 / 7, "macro_f1": (0.75 + 0.8) / 3, "calibration_error": 2 / 7}
    )
    assert all(type(value) is float for value in metrics.values())


def test_a_class_that_never_occurs_is_no_part_of_macro_f1():
    targets = torch.tensor([0, 0, 3])
    metrics, _ = class_metrics(certain([0, 3, 3], 5), targets)
    assert metrics["macro_f1"] == pytest.approx(2 / 3)
    metrics, _ = class_metrics(certain([0, 4, 3], 5), targets)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_of_equal_probabilities_the_first_class_is_predicted():
    metrics, confusion = class_metrics(torch.full((2, 2), 0.5), torch.tensor([0, 1]))
    assert metrics == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3), "calibration_error": 0.0}
    assert confusion.tolist() == [[1, 0], [1, 0]]


@given(seed=seeds, rows=sizes, classes=st.integers(2, 6))
def test_all_are_those_of_torchmetrics(seed, rows, classes):
    probs, targets = problem(seed, rows, classes)
    metrics, confusion = class_metrics(probs, targets)
    assert torch.equal(confusion, oracle.multiclass_confusion_matrix(probs, targets, classes))
    expected = {
        "accuracy": oracle.multiclass_accuracy(probs, targets, classes, average="micro"),
        "macro_f1": oracle.multiclass_f1_score(probs, targets, classes, average="macro"),
        "calibration_error": oracle.multiclass_calibration_error(probs, targets, classes, n_bins=15),
    }
    assert metrics == pytest.approx({name: value.item() for name, value in expected.items()}, abs=1e-6)
    rows = class_rows(confusion, list(map(str, range(classes))))
    for name, function in {
        "precision": oracle.multiclass_precision,
        "recall": oracle.multiclass_recall,
        "f1": oracle.multiclass_f1_score,
    }.items():
        expected = function(probs, targets, classes, average="none").tolist()
        assert [row[name] for row in rows] == pytest.approx(expected, abs=1e-6)


@given(seed=seeds, rows=sizes, classes=st.integers(1, 5))
def test_a_confusion_matrix_counts_pairs(seed, rows, classes):
    torch.manual_seed(seed)
    predicted, targets = torch.randint(classes, (rows,)), torch.randint(classes, (rows,))
    pairs = list(zip(targets.tolist(), predicted.tolist(), strict=True))
    expected = [[pairs.count((true, taken)) for taken in range(classes)] for true in range(classes)]
    assert confusion_matrix(predicted, targets, classes).tolist() == expected


# Calibration.


def test_calibration_worked_by_hand():
    """Two of four intervals are used: one right and one wrong at 0.6 and 0.7, one right at 0.9."""
    probs = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)
    found = calibrate(probs, torch.tensor([0, 0, 0]), bins=4)
    assert found.count.tolist() == [0, 0, 2, 1]
    assert found.confidence.tolist() == pytest.approx([0, 0, 0.65, 0.9])
    assert found.accuracy.tolist() == [0, 0, 0.5, 1]
    assert found.error == pytest.approx(2 / 3 * 0.15 + 1 / 3 * 0.1)


@pytest.mark.parametrize(
    ("confidence", "interval"), [(0.5, 1), (0.5 + 1e-9, 2), (0.75, 2), (0.76, 3), (1.0, 3)]
)
def test_an_interval_holds_its_upper_end(confidence, interval):
    found = calibrate(torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64), torch.tensor([0]), 4)
    assert found.count.nonzero().tolist() == [[interval]]


@given(seed=seeds, rows=sizes, classes=st.integers(2, 5), bins=st.integers(1, 20))
def test_calibration_is_its_definition(seed, rows, classes, bins):
    probs, targets = problem(seed, rows, classes)
    found = calibrate(probs, targets, bins)
    error = 0.0
    for index in range(bins):
        rows_in = [r for r in range(rows) if math.ceil(probs[r].max().item() * bins) == index + 1]
        assert found.count[index] == len(rows_in)
        if rows_in:
            confidence = sum(probs[r].max().item() for r in rows_in) / len(rows_in)
            right = sum(int(probs[r].argmax() == targets[r]) for r in rows_in) / len(rows_in)
            assert (found.confidence[index], found.accuracy[index]) == pytest.approx((confidence, right))
            error += len(rows_in) / rows * abs(confidence - right)
    assert found.error == pytest.approx(error)


def test_nothing_has_no_calibration_error():
    nothing = torch.zeros(4, dtype=torch.float64)
    assert Calibration(nothing.long(), nothing, nothing).error == 0


# Several labels.


def test_several_labels_worked_by_hand():
    """Three rows of three labels: 2 found, 1 in error, 2 missed; the last label never is nor is said."""
    probs = torch.tensor([[0.9, 0.2, 0.1], [0.5, 0.4, 0.0], [0.6, 0.1, 0.3]])
    targets = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    expected = {"micro_f1": 4 / 7, "macro_f1": (4 / 5 + 0 + 0) / 3, "exact_match": 1 / 3}
    for kind in (torch.int64, torch.bool, torch.float32):
        assert multi_label_metrics(probs, targets.to(kind)) == pytest.approx(expected)


@given(seed=seeds, rows=sizes, labels=st.integers(1, 5))
def test_several_labels_are_those_of_torchmetrics(seed, rows, labels):
    torch.manual_seed(seed)
    probs = torch.rand(rows, labels)
    targets = torch.randint(2, (rows, labels)) * torch.randint(2, (labels,))
    if labels == 1:
        f1 = oracle.binary_f1_score(probs, targets).item()
        expected = {"micro_f1": f1, "macro_f1": f1, "exact_match": oracle.binary_accuracy(probs, targets)}
    else:
        expected = {
            "micro_f1": oracle.multilabel_f1_score(probs, targets, labels, average="micro"),
            "macro_f1": oracle.multilabel_f1_score(probs, targets, labels, average="macro"),
            "exact_match": oracle.multilabel_exact_match(probs, targets, labels),
        }
    found = multi_label_metrics(probs, targets)
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)


def test_each_of_several_labels_has_its_row():
    probs = torch.tensor([[0.9, 0.2], [0.5, 0.8], [0.1, 0.7]])
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert label_rows(probs, targets, ["red", "round"]) == [
        {"class": "red", "precision": 1 / 2, "recall": 1, "f1": pytest.approx(2 / 3), "support": 1},
        {"class": "round", "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2},
    ]


def test_what_cannot_be_measured():
    probs = torch.full((3, 2), 0.5)
    for bad in (probs[:0], probs[0], probs.long()):
        with pytest.raises(ShapeError, match=r"probs must be floating point of shape \[N, K\]"):
            class_metrics(bad, torch.zeros(len(bad), dtype=torch.int64))
        with pytest.raises(ShapeError, match="probs must be floating point"):
            multi_label_metrics(bad, bad)
    for bad in (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64)):
        with pytest.raises(ShapeError, match=r"targets must have shape \[N\], got"):
            class_metrics(probs, bad)
        with pytest.raises(ShapeError, match=r"targets must have shape \[N, K\], got"):
            multi_label_metrics(probs, bad)
    for bad in (torch.tensor([0, 1, 2]), torch.tensor([0, -1, 1]), torch.zeros(3)):
        with pytest.raises(ShapeError, match=r"targets must be integers of 0\.\.1"):
            class_metrics(probs, bad)


# The figure.


def drawn(classes, names=None):
    """The figure of some problem, its size in points, its axes, and what it shows."""
    probs, targets = problem(3, 200, classes)
    _, confusion = class_metrics(probs, targets)
    names = [f"class {index}" for index in range(classes)] if names is None else names
    calibration = calibrate(probs, targets)
    figure = draw_confusion(confusion, names, calibration)
    figure.savefig(io.BytesIO())
    return figure, confusion, calibration


@pytest.mark.parametrize("classes", [2, 3, 18, 30])
def test_cells_are_large_enough_to_read_however_many_there_are(classes):
    figure, _, _ = drawn(classes)
    width, height = figure.get_size_inches()
    assert (width, height) <= (20, 16)
    matrix, reliability, _ = figure.axes
    assert matrix.get_window_extent().width / figure.dpi >= max(2, 0.3 * classes)
    assert reliability.get_window_extent().height / figure.dpi >= 2
    sizes = {text.get_fontsize() for text in matrix.texts}
    assert len(sizes) == 1
    assert min(sizes) >= 8


def test_many_classes_share_the_room_of_some_and_have_no_counts():
    confusion, names = torch.ones(1600, 1600, dtype=torch.int64), [f"{k}" for k in range(1600)]
    figure = draw_confusion(confusion, names, calibrate(*problem(3, 9, 2)))
    matrix = figure.axes[0]
    assert max(figure.get_size_inches()) < 40
    assert not matrix.texts
    for labels in (matrix.get_xticklabels(), matrix.get_yticklabels()):
        assert [label.get_text() for label in labels] == names[::20]


def test_a_count_lies_within_its_cell():
    confusion = torch.full((20, 20), 10**6)
    figure = draw_confusion(confusion, ["class"] * 20, calibrate(*problem(3, 200, 20)))
    figure.savefig(io.BytesIO())
    matrix = figure.axes[0]
    cell = matrix.get_window_extent().width / 20
    assert len(matrix.texts) == 400
    assert all(text.get_window_extent().width < cell for text in matrix.texts)


@pytest.mark.parametrize(
    "names", [["no", "yes"], ["positive", "negative"], ["a" * 20, "b" * 300, "c"]], ids=len
)
def test_names_stand_apart(names):
    figure, _, _ = drawn(len(names), names)
    for ticks in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        extents = [label.get_window_extent() for label in ticks]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(extents, 2))


def test_names_are_shown_as_they_are_but_for_long_ones():
    odd = ["a" * 300, r"$\wrong{$", "ζ_1^"]
    figure, _, _ = drawn(3, odd)
    for ticks in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        assert [label.get_text() for label in ticks] == ["a" * 19 + "…", *odd[1:]]


def test_one_name_for_each_class():
    with pytest.raises(ShapeError, match=r"each of 2 names, got shape \[3, 3\]"):
        drawn(3, ["one", "two"])


def test_cells_show_counts_in_the_colour_of_their_share_of_the_row():
    figure, confusion, _ = drawn(3)
    matrix = figure.axes[0]
    texts = {text.get_position(): text.get_text() for text in matrix.texts}
    assert texts == {
        (column, row): str(count)
        for row, counts in enumerate(confusion.tolist())
        for column, count in enumerate(counts)
        if count
    }
    shares = torch.from_numpy(matrix.images[0].get_array().data)
    torch.testing.assert_close(shares.double(), confusion / confusion.sum(1, keepdim=True).double())
    assert matrix.images[0].get_clim() == (0, 1)
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("predicted", "true")


def test_counts_stand_out_from_their_cells():
    """The ratio of contrast that the guidelines for web content ask for is 4.5, of large letters 3."""
    confusion = torch.tensor([[share, 40 - share] + [0] * 19 for share in range(21)])
    matrix = draw_confusion(confusion, ["class"] * 21, calibrate(*problem(3, 9, 2))).axes[0]
    colors = matrix.images[0].to_rgba(matrix.images[0].get_array())[..., :3]
    linear = numpy.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    assert {text.get_color() for text in matrix.texts} == {"white", "black"}
    for text in matrix.texts:
        column, row = text.get_position()
        cell = luminance[row, column]
        light, dark = (1, cell) if text.get_color() == "white" else (cell, 0)
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_the_diagram_shows_accuracy_by_confidence():
    figure, _, calibration = drawn(3)
    _, reliability, histogram = figure.axes
    x, y = reliability.lines[1].get_data()
    some = calibration.count > 0
    assert list(x) == calibration.confidence[some].tolist()
    assert list(y) == calibration.accuracy[some].tolist()
    assert [bar.get_height() for bar in histogram.patches] == calibration.count.tolist()
    assert f"{calibration.error:.3f}" in reliability.get_title()
