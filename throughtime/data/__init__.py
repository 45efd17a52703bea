"""From files to the numbers that a model reads."""

from throughtime.data.corpus import encode
from throughtime.data.streams import Chunk, Streams
from throughtime.data.text import Document, Text, open_text
from throughtime.data.tokens import BytePairs, Characters, Tokeniser, Words, fit_tokeniser

__all__ = [
    "BytePairs",
    "Characters",
    "Chunk",
    "Document",
    "Streams",
    "Text",
    "Tokeniser",
    "Words",
    "encode",
    "fit_tokeniser",
    "open_text",
]
