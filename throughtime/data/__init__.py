"""From files to the numbers that a model reads."""

from throughtime.data.audio import Sound, read_sound
from throughtime.data.columns import Table, join_tables
from throughtime.data.corpus import encode
from throughtime.data.features import LogMel, LogMelStream
from throughtime.data.pairs import Pairs, read_pairs
from throughtime.data.recordings import Recordings, read_recordings
from throughtime.data.series import Part, Series
from throughtime.data.series_tables import Roles, read_long, read_rows, read_wide
from throughtime.data.spellings import Vocabulary, spell
from throughtime.data.streams import Chunk, Streams
from throughtime.data.tables import read_table
from throughtime.data.text import Document, Text, open_text, read_lines
from throughtime.data.tokens import BytePairs, Characters, Tokeniser, Words, fit_tokeniser
from throughtime.data.vectors import Vectors, read_vectors
from throughtime.data.windows import Framing, Statistics, WindowBatch, Windows

__all__ = [
    "BytePairs",
    "Characters",
    "Chunk",
    "Document",
    "Framing",
    "LogMel",
    "LogMelStream",
    "Pairs",
    "Part",
    "Recordings",
    "Roles",
    "Series",
    "Sound",
    "Statistics",
    "Streams",
    "Table",
    "Text",
    "Tokeniser",
    "Vectors",
    "Vocabulary",
    "WindowBatch",
    "Windows",
    "Words",
    "encode",
    "fit_tokeniser",
    "join_tables",
    "open_text",
    "read_lines",
    "read_long",
    "read_pairs",
    "read_recordings",
    "read_rows",
    "read_sound",
    "read_table",
    "read_vectors",
    "read_wide",
    "spell",
]
