"""When two answers agree, and the lengths and resets with which they are asked for."""

from random import Random

import torch


def close(mine, reference, tolerance=1e-10):
    """Equal to `tolerance` of the largest number of a tensor: an element may be a sum of far larger ones."""
    assert mine.keys() == reference.keys()
    for name, expected in reference.items():
        finite = expected[expected.isfinite()].detach().abs()
        scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
        torch.testing.assert_close(
            mine[name].to(expected),
            expected,
            rtol=tolerance,
            atol=tolerance * scale,
            equal_nan=True,
            msg=lambda said, name=name: f"{name}: {said}",
        )


def same(one, other):
    """Equal to the last bit."""
    close(one, other, tolerance=0)


def draw_given(graph, steps, batch, hidden, generator=None, tables=4):
    """What a cell needs besides x, states and weights: normal numbers, and any row of a table at any step."""
    shapes = graph.given_shapes(steps, batch, hidden)
    return {
        name: torch.randint(tables, shape, generator=generator)
        if graph.given[name] == "steps"
        else torch.randn(
            shape if shape[0] >= 0 else (tables, hidden), generator=generator, dtype=torch.float64
        )
        for name, shape in shapes.items()
    }


def given_at(graph, given, steps, rows=slice(None)):
    """What is given for some steps and rows of those it was drawn for."""
    at = {"table": (...,), "row_mask": (rows,)}
    return {name: value[at.get(graph.given[name], (steps, rows))] for name, value in given.items()}


def options_of(kind, steps, batch):
    """Lengths and resets, each with its extremes where there is room for them."""
    random = Random(steps * batch)
    lengths = torch.tensor([random.randint(0, steps) for _ in range(batch)])
    lengths[0], lengths[-1] = steps, 0 if batch > 1 else steps // 2
    reset = torch.tensor([random.random() < 0.3 for _ in range(steps * batch)]).view(steps, batch)
    reset[0, 0] = True
    return {
        "full": {},
        "lengths": {"lengths": lengths},
        "no steps": {"lengths": torch.zeros(batch, dtype=torch.int64)},
        "reset": {"reset": reset},
        "always reset": {"reset": torch.ones(steps, batch, dtype=torch.bool)},
        "both": {"lengths": lengths, "reset": reset},
    }[kind]


KINDS = ("full", "lengths", "both", "reset", "no steps", "always reset")
