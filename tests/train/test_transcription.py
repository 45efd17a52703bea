"""Error rates by hand, and the figure of a transcript."""

import pytest
import torch

from throughtime.train.spectrogram import draw_transcript
from throughtime.train.transcription import transcription_metrics


def test_error_rates_count_substitutions_deletions_and_insertions():
    right = ["one two three", "four"]
    assert transcription_metrics(right, right) == {"wer": 0, "cer": 0, "accuracy": 1}
    found = transcription_metrics(["one too", "four four"], right)
    assert found["wer"] == pytest.approx(3 / 4)  # a substitution, a deletion, an insertion
    assert found["cer"] == pytest.approx((1 + 6 + 5) / 17)
    assert found["accuracy"] == 0
    assert transcription_metrics(["", "four"], right)["accuracy"] == 0.5


@pytest.mark.parametrize(("frames", "labels"), [(40, ["a", "$_", "blank"]), (0, ["blank"])])
def test_the_figure_has_seconds_below(frames, labels, tmp_path):
    posteriors = torch.rand(-(-frames // 2), len(labels))
    figure = draw_transcript(
        torch.randn(frames, 12), posteriors, labels, seconds=frames / 100, highest=4000, title="$x$ and y"
    )
    above, below = figure.axes
    assert below.get_xlabel() == "seconds" and above.get_title(loc="left") == "$x$ and y"
    assert [label.get_text() for label in below.get_yticklabels()] == labels
    assert below.get_xlim()[1] == pytest.approx(max(frames / 100, 1e-3))
    figure.savefig(tmp_path / "figure.png")
