"""What may be said of every place of a text: in quotes, how far into the line, in capitals, ..."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from throughtime.insight.pages import needs_spaces

Trait = NDArray[np.float32]

OPENING, CLOSING = "([{", ")]}"
VOWELS = frozenset("aeiouAEIOU")


def of_tokens(tokens: Sequence[str]) -> dict[str, Trait]:
    """Each trait by its name, [tokens]: what holds when a token, and all before it, has been read.

    Words without white space have a space between them. Before the first character all are 0.
    """
    words = needs_spaces([tokens])
    pieces = [f"{token} " if words else token for token in tokens]
    ends = np.cumsum([len(piece) for piece in pieces]) - (2 if words else 1)
    text = "".join(pieces)
    known = ends >= 0
    found = {name: np.zeros(len(tokens), np.float32) for name in TRAITS}
    for name, trait in TRAITS.items():
        if text:
            found[name][known] = trait(text)[ends[known]]
    return found


def _each(test: Callable[[str], bool]) -> Callable[[str], Trait]:
    """1 at the characters that pass a test."""
    return lambda text: np.fromiter((test(c) for c in text), np.float32, len(text))


def _since(test: Callable[[str], bool]) -> Callable[[str], Trait]:
    """How many characters were read since the last one that passes a test."""

    def count(text: str) -> Trait:
        found, n = np.zeros(len(text), np.float32), 0
        for k, character in enumerate(text):
            n = 0 if test(character) else n + 1
            found[k] = n
        return found

    return count


def _quotes(text: str) -> Trait:
    """1 between two signs " (or “ and ”) of one paragraph."""
    found, inside = np.zeros(len(text), np.float32), False
    for k, character in enumerate(text):
        if character in '"“”':
            inside = character != "”" and not inside
        elif text[max(k - 1, 0) : k + 1] == "\n\n":
            inside = False
        found[k] = inside
    return found


def _brackets(text: str) -> Trait:
    """How many brackets are open."""
    found, depth = np.zeros(len(text), np.float32), 0
    for k, character in enumerate(text):
        depth = max(depth + (character in OPENING) - (character in CLOSING), 0)
        found[k] = depth
    return found


def _indentation(text: str) -> Trait:
    """How many spaces the line began with; while these are read, how many so far."""
    found, n, beginning = np.zeros(len(text), np.float32), 0, True
    for k, character in enumerate(text):
        if character == "\n":
            n, beginning = 0, True
        elif beginning and character in " \t":
            n += 4 if character == "\t" else 1
        else:
            beginning = False
        found[k] = n
    return found


def _capitals(text: str) -> Trait:
    """1 in a word of which two letters or more, and all so far, are capitals."""
    found, letters, capital = np.zeros(len(text), np.float32), 0, True
    for k, character in enumerate(text):
        letters, capital = (
            (letters + 1, capital and character.isupper()) if character.isalpha() else (0, True)
        )
        found[k] = letters > 1 and capital
    return found


def _first_line(text: str) -> Trait:
    """1 in the line after an empty one, or the first: that of a speaker's name, or of a paragraph."""
    found, first, empty = np.zeros(len(text), np.float32), True, False
    for k, character in enumerate(text):
        if character == "\n":
            first, empty = empty, True
        else:
            empty = False
        found[k] = first
    return found


def _lines(text: str) -> Trait:
    """How many lines were read since the last empty one."""
    found, n, empty = np.zeros(len(text), np.float32), 0, True
    for k, character in enumerate(text):
        if character == "\n":
            n, empty = 0 if empty else n + 1, True
        else:
            empty = False
        found[k] = n
    return found


#: How a trait is told from a text: [characters].
TRAITS: dict[str, Callable[[str], Trait]] = {
    "position in the line": _since(lambda c: c == "\n"),
    "position in the word": _since(lambda c: not c.isalnum()),
    "position in the sentence": _since(lambda c: c in ".!?"),
    "lines since an empty one": _lines,
    "line after an empty one": _first_line,
    "indentation": _indentation,
    "in quotes": _quotes,
    "open brackets": _brackets,
    "word in capitals": _capitals,
    "capital": _each(str.isupper),
    "letter": _each(str.isalpha),
    "vowel": _each(VOWELS.__contains__),
    "digit": _each(str.isdecimal),
    "space": _each(lambda c: c == " "),
    "line end": _each(lambda c: c == "\n"),
    "end of a sentence": _each(lambda c: c in ".!?"),
    "comma, semicolon or colon": _each(lambda c: c in ",;:"),
}
