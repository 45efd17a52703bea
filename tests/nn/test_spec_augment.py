"""SpecAugment: how much is hidden, where, and that a generator decides it."""

import torch

from throughtime.nn.spec_augment import spec_augment

LENGTHS = torch.tensor([60, 0, 33, 5])


def masked(seed=0, **options):
    x = torch.ones(4, 60, 20)
    return spec_augment(x, LENGTHS, generator=torch.Generator().manual_seed(seed), **options) == 0


def test_bands_are_hidden_throughout():
    seen = set()
    for seed in range(300):
        hidden = masked(seed, bands=1, band_width=7, stretches=0)
        assert (hidden == hidden[:, :1]).all()
        row = hidden[0, 0].nonzero()[:, 0].tolist()
        assert row == list(range(row[0], row[-1] + 1)) if row else True
        seen.add(len(row))
        seen.add(("place", row[0]) if row else None)
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= seen and 8 not in seen
    assert {("place", 0), ("place", 18)} <= seen


def test_stretches_stay_within_a_row_and_its_share():
    longest = torch.zeros(4, dtype=torch.int64)
    for seed in range(300):
        hidden = masked(seed, bands=0, stretches=1, stretch_width=25, longest_share=0.2)
        assert (hidden == hidden[:, :, :1]).all()
        steps = hidden[:, :, 0]
        assert not (steps & (torch.arange(60) >= LENGTHS[:, None])).any()
        longest = torch.maximum(longest, steps.sum(1))
    assert longest.tolist() == [12, 0, 6, 1]


def test_the_generator_decides_and_nothing_is_hidden_by_no_mask():
    assert (masked(3) == masked(3)).all() and (masked(3) != masked(4)).any()
    assert not masked(bands=0, stretches=0).any()
