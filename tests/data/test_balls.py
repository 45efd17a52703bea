"""Balls in a box: the laws of collisions, and pictures that show where balls are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.balls import Balls, draw_balls, make_balls, simulate


def world(position, velocity, radius):
    return Balls(*(np.array(each, dtype=float) for each in (position, velocity, radius)))


def test_a_ball_turns_round_where_it_touches_the_wall():
    """0.1 from the wall at 0.15 a frame: after 2/3 of a frame it turns."""
    positions, velocities = simulate(world([[0.8, 0.5]], [[0.15, 0]], [0.1]), 3)
    assert positions[:, 0] == pytest.approx(np.array([[0.8, 0.5], [0.85, 0.5], [0.7, 0.5]]))
    assert velocities[:, 0, 0] == pytest.approx([0.15, -0.15, -0.15])


def test_a_corner_turns_both_ways():
    _, velocities = simulate(world([[0.8, 0.2]], [[0.1, -0.1]], [0.1]), 3)
    assert velocities[-1, 0] == pytest.approx([-0.1, 0.1])


def test_equal_balls_exchange_their_speeds():
    """0.2 between them at 0.1 a frame each: they meet after a frame."""
    balls = world([[0.3, 0.5], [0.7, 0.5]], [[0.1, 0], [-0.1, 0]], [0.1, 0.1])
    positions, velocities = simulate(balls, 3)
    assert positions[1] == pytest.approx(np.array([[0.4, 0.5], [0.6, 0.5]]))
    assert positions[2] == pytest.approx(np.array([[0.3, 0.5], [0.7, 0.5]]))
    assert velocities[2, :, 0] == pytest.approx([-0.1, 0.1])


def test_a_resting_ball_takes_what_the_line_of_middles_gives():
    """A heavy ball hits a light one head on: v' = (m - n) / (m + n) v and 2 m / (m + n) v."""
    _, velocities = simulate(world([[0.3, 0.5], [0.55, 0.5]], [[0.04, 0], [0, 0]], [0.14, 0.1]), 3)
    heavy, light = 0.14**2, 0.1**2
    expected = [(heavy - light) / (heavy + light) * 0.04, 2 * heavy / (heavy + light) * 0.04]
    assert velocities[-1, :, 0] == pytest.approx(expected)


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_energy_is_kept_and_nothing_leaves_or_overlaps(seed, count):
    balls = make_balls(np.random.default_rng(seed), count)
    positions, velocities = simulate(balls, 60)
    energy = (balls.radius**2 * (velocities**2).sum(-1)).sum(-1)
    assert energy == pytest.approx(np.full(60, energy[0]), rel=1e-9)
    assert (positions >= balls.radius[:, None] - 1e-9).all()
    assert (positions <= 1 - balls.radius[:, None] + 1e-9).all()
    for i in range(count):
        for j in range(i):
            distance = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
            assert (distance >= balls.radius[i] + balls.radius[j] - 1e-9).all()


@given(*[st.integers(-15, 15)] * 3, *[st.integers(8, 12)] * 2)
def test_two_balls_that_meet_keep_their_momentum(offset, sideways, down, small, large):
    """Far from all walls, and 0.3 apart at first."""
    offset, sideways, down, small, large = (each / 100 for each in (offset, sideways, down, small, large))
    balls = world(
        [[0.35, 0.5], [0.65, 0.5 + offset]], [[0.04, down / 4], [-0.03, sideways / 20]], [small, large]
    )
    _, velocities = simulate(balls, 6)
    mass = balls.radius[:, None] ** 2
    for velocity in velocities:
        assert (mass * velocity).sum(0) == pytest.approx((mass * velocities[0]).sum(0), abs=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_time_runs_backwards(seed, count):
    """With all speeds turned round the balls go back to where they were."""
    balls = make_balls(np.random.default_rng(seed), count)
    positions, velocities = simulate(balls, 12)
    back, _ = simulate(balls._replace(position=positions[-1], velocity=-velocities[-1]), 12)
    assert back[::-1] == pytest.approx(positions, abs=1e-6)


def test_a_picture_shows_where_the_balls_are():
    balls = make_balls(np.random.default_rng(1), 1)
    positions, _ = simulate(balls, 9)
    pictures = draw_balls(positions, balls.radius).astype(float)
    assert pictures.shape == (9, 32, 32) and pictures.max() == 255
    middles = (np.arange(32) + 0.5) / 32
    for picture, (x, y) in zip(pictures, positions[:, 0], strict=True):
        weight = picture / picture.sum()
        assert (weight.sum(0) @ middles, weight.sum(1) @ middles) == pytest.approx((x, y), abs=2e-3)
        assert picture.sum() / 255 / 32**2 == pytest.approx(np.pi * balls.radius[0] ** 2, rel=0.03)


def test_each_ball_has_its_own_brightness():
    balls = make_balls(np.random.default_rng(2), 3)
    picture = draw_balls(balls.position[None], balls.radius, 64)[0]
    for (x, y), bright in zip(balls.position, (1.0, 0.65, 0.35), strict=True):
        assert picture[int(64 * y), int(64 * x)] == round(255 * bright)
