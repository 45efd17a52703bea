"""A transcript for people: when each word was said, and the figure of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from throughtime.data.features import LogMel
from throughtime.data.tokens import Tokeniser
from throughtime.heads.ctc import BLANK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def word_times(pieces: Iterable[str], spans: Iterable[tuple[float, float]]) -> list[dict[str, Any]]:
    """The words that pieces of a text make up, with the seconds in which their pieces stand."""
    words: list[dict[str, Any]] = []
    goes_on = False
    for piece, (start, end) in zip(pieces, spans, strict=True):
        text = piece.strip()
        if text and goes_on and not piece[0].isspace():
            words[-1]["word"] += text
            words[-1]["end"] = round(end, 3)
        elif text:
            words.append({"word": text, "start": round(start, 3), "end": round(end, 3)})
        goes_on = bool(text)
    return words


def draw_heard(
    frames: Float[Tensor, "T M"],
    log_probs: Float[Tensor, "S C"],
    text: str,
    tokeniser: Tokeniser,
    features: LogMel,
) -> Figure:
    """The log-mel picture of a sound, and the probability of each token of a text at each step."""
    from throughtime.train.spectrogram import draw_transcript

    tokens = list(dict.fromkeys(tokeniser.encode(text).tolist()))
    return draw_transcript(
        frames,
        log_probs[:, [*tokens, BLANK]].exp(),
        [*(tokeniser.decode([token]).strip() or "space" for token in tokens), "blank"],
        seconds=features.seconds(len(frames)),
        highest=features.rate / 2,
        title=text or "(nothing heard)",
    )
