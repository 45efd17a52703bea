"""Balls in a box: where they are in each frame, by the laws of elastic collisions, and how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: Radius of a ball, and how far it moves in a frame; in widths of the box.
RADIUS, SPEED = (0.08, 0.12), (0.03, 0.06)
#: How bright each ball is, so that it can be told from the others.
BRIGHTNESS = (1.0, 0.65, 0.35)
#: Pixels over which the edge of a ball fades.
EDGE = 1.0


class Balls(NamedTuple):
    """K balls in a box of side 1. A ball weighs as much as it covers, the square of its radius.

    position  of their middles [K, 2], (x, y).
    velocity  how far they move in a frame [K, 2].
    radius    [K].
    """

    position: Numbers
    velocity: Numbers
    radius: Numbers


def make_balls(random: np.random.Generator, count: int = 1) -> Balls:
    """One to three balls somewhere in the box, apart from each other, each moving anywhere."""
    radius = random.uniform(*RADIUS, count)
    position = _places(random, radius)
    while any(_gap(position[[i, j]], radius[[i, j]]) <= 0 for i, j in combinations(range(count), 2)):
        position = _places(random, radius)
    angle = random.uniform(0, 2 * np.pi, count)
    velocity = random.uniform(*SPEED, (count, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    return Balls(position, velocity, radius)


def simulate(balls: Balls, frames: int) -> tuple[Numbers, Numbers]:
    """Positions and velocities [frames, K, 2], the first as they are given.

    Exact but for rounding: balls move straight to the next collision, whenever in a frame it is. A wall
    turns the speed towards it round. Two balls exchange momentum along the line n between their middles,

        v_i ← v_i + 2 m_j / (m_i + m_j) ((v_j - v_i) · n) n,

    and j alike, which keeps momentum and energy.
    """
    positions, velocities = [balls.position], [balls.velocity]
    for _ in range(frames - 1):
        balls = _advance(balls, 1.0)
        positions.append(balls.position)
        velocities.append(balls.velocity)
    return np.stack(positions), np.stack(velocities)


def draw_balls(positions: Numbers, radius: Numbers, size: int = 32) -> NDArray[np.uint8]:
    """Grey pictures [T, size, size] of balls at `positions` [T, K, 2], on black, with soft edges.

    y points down, as rows do. Each ball has its own brightness, and the brighter one covers the other.
    """
    middles = (np.arange(size) + 0.5) / size
    across = middles - positions[..., None, :1]  # [T, K, 1, size]
    down = middles[:, None] - positions[..., None, 1:]  # [T, K, size, 1]
    inside = (radius[:, None, None] - np.hypot(across, down)) * size / EDGE + 0.5
    bright = np.array(BRIGHTNESS[: len(radius)])[:, None, None] * inside.clip(0, 1)
    return (255 * bright.max(1)).round().astype(np.uint8)


def _places(random: np.random.Generator, radius: Numbers) -> Numbers:
    return random.uniform(radius[:, None], 1 - radius[:, None], (len(radius), 2))


def _gap(position: Numbers, radius: Numbers) -> float:
    return float(np.linalg.norm(position[0] - position[1]) - radius.sum())


def _advance(balls: Balls, time: float) -> Balls:
    while (next_one := min(_collisions(balls), key=lambda each: each.wait, default=NEVER)).wait < time:
        moved = balls._replace(position=balls.position + next_one.wait * balls.velocity)
        balls = moved._replace(velocity=_after(moved, next_one))
        time -= next_one.wait
    return balls._replace(position=balls.position + time * balls.velocity)


class _Collision(NamedTuple):
    """After `wait` frames, of `ball` with another one, or with a wall that is met along `axis`."""

    wait: float
    ball: int
    other: int | None = None
    axis: int = 0


NEVER = _Collision(np.inf, 0)


def _collisions(balls: Balls) -> Iterator[_Collision]:
    """When each ball would meet each wall and each other ball, if nothing came between.

    Nothing that moves apart meets, so that rounding lets no collision happen twice.
    """
    for ball, axis in np.argwhere(balls.velocity):
        speed, place = balls.velocity[ball, axis], balls.position[ball, axis]
        room = (1 - place if speed > 0 else place) - balls.radius[ball]
        yield _Collision(max(room, 0.0) / abs(speed), ball, axis=axis)
    for ball, other in combinations(range(len(balls.radius)), 2):
        apart = balls.position[other] - balls.position[ball]
        relative = balls.velocity[other] - balls.velocity[ball]
        # |apart + wait · relative| is the sum of the radii: a quadratic equation.
        closing, squared = -apart @ relative, relative @ relative
        over = apart @ apart - (balls.radius[ball] + balls.radius[other]) ** 2
        under_root = closing**2 - squared * over
        if closing > 0 and under_root > 0:
            yield _Collision(max((closing - np.sqrt(under_root)) / squared, 0.0), ball, other)


def _after(balls: Balls, collision: _Collision) -> Numbers:
    """The velocities after a collision."""
    velocity, (_, i, j, axis) = balls.velocity.copy(), collision
    if j is None:
        velocity[i, axis] *= -1
        return velocity
    along = balls.position[j] - balls.position[i]
    along /= np.linalg.norm(along)
    mass = balls.radius**2
    push = 2 * (velocity[j] - velocity[i]) @ along / (mass[i] + mass[j]) * along
    velocity[i] += mass[j] * push
    velocity[j] -= mass[i] * push
    return velocity
