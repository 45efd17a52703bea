"""From files to the numbers that a model reads."""

from throughtime.data.audio import Sound, read_sound
from throughtime.data.columns import Table, join_tables
from throughtime.data.corpus import encode
from throughtime.data.features import LogMel, LogMelStream
from throughtime.data.pairs import Pairs, read_pairs
from throughtime.data.recordings import Recordings, read_recordings
from throughtime.data.spellings import Vocabulary, spell
from throughtime.data.streams import Chunk, Streams
from throughtime.data.tables import read_table
from throughtime.data.text import Document, Text, open_text, read_lines
from throughtime.data.tokens import BytePairs, Characters, Tokeniser, Words, fit_tokeniser
from throughtime.data.vectors import Vectors, read_vectors

__all__ = [
    "BytePairs",
    "Characters",
    "Chunk",
    "Document",
    "LogMel",
    "LogMelStream",
    "Pairs",
    "Recordings",
    "Sound",
    "Streams",
    "Table",
    "Text",
    "Tokeniser",
    "Vectors",
    "Vocabulary",
    "Words",
    "encode",
    "fit_tokeniser",
    "join_tables",
    "open_text",
    "read_lines",
    "read_pairs",
    "read_recordings",
    "read_sound",
    "read_table",
    "read_vectors",
    "spell",
]
