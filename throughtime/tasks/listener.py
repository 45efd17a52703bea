"""Listening: a transcript that grows while the sound comes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.data.audio import Converter
from throughtime.data.features import LogMel, LogMelStream
from throughtime.decode.ctc import collapse
from throughtime.heads.ctc import BLANK
from throughtime.models.transcriber import Transcriber


class Listener:
    """What a model in one direction has heard so far; `TranscriberTask.stream` makes one.

    Everything between two pieces of sound is here: samples that no frame has used yet in `_frames`, what the
    model has in hand in `_state`, the class of the last step in `_last`. Pieces of any size give the text
    that greedy search finds in the whole sound, and no character of it changes once it is there.

    text     what was said so far.
    seconds  how much sound was heard.
    """

    def __init__(
        self, model: Transcriber, features: LogMel, write: Callable[[Sequence[int]], str], rate: int
    ) -> None:
        self._model, self._write, self._rate = model, write, rate
        self._converter = Converter(rate, features.rate)
        self._frames = LogMelStream(features)
        self._state = model.begin(1)
        self._last = BLANK
        self._tokens: list[int] = []
        self._samples = 0
        self.text = ""

    @property
    def seconds(self) -> float:
        """How much sound was heard."""
        return self._samples / self._rate

    def feed(self, samples: Float[NDArray[np.float32], "N"]) -> str:
        """Hear more samples, between -1 and 1; returns the text so far."""
        self._samples += len(samples)
        return self._hear(self._converter.feed(np.ascontiguousarray(samples, dtype=np.float32)))

    def finish(self) -> str:
        """The whole text, once no more samples come: a rate is converted by looking a little ahead."""
        return self._hear(self._converter.feed(np.zeros(0, np.float32), last=True))

    def _hear(self, samples: Float[NDArray[np.float32], "N"]) -> str:
        frames = self._frames.feed(torch.from_numpy(samples))
        if len(frames):
            frames = frames[None].to(self._state.before.device)
            log_probs, self._state = self._model.advance(frames, self._state)
            tokens, self._last = collapse(log_probs[0].argmax(-1).tolist(), BLANK, self._last)
            if tokens:
                self._tokens += tokens
                self.text = self._write(self._tokens)
        return self.text
