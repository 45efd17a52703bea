"""The figure of attention."""

import io

import numpy as np
import pytest

from throughtime.insight.alignment import draw_alignment


def test_columns_are_the_input_and_rows_the_output():
    weights = [[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]]
    figure = draw_alignment(["a", "b", "<end>"], ["x", "<end>"], weights)
    axes = figure.axes[0]
    assert axes.images[0].get_array().tolist() == weights and axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "<end>"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "<end>"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input", "output")


def test_tokens_are_shown_as_they_are():
    tokens = ["$x_", "a$b$", r"\frac"]
    axes = draw_alignment(tokens, tokens, np.eye(3).tolist()).axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == tokens
        assert not any(label.get_parse_math() for label in labels)


@pytest.mark.parametrize("tokens", [["$", "$x_", "\\frac", ""], ["token"] * 3000])
def test_any_token_and_any_number_of_them_is_drawn(tokens):
    figure = draw_alignment(tokens, ["$y$"], np.full((1, len(tokens)), 1 / len(tokens)).tolist())
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
