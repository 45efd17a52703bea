"""The words of a text with mistakes made in them, as a table of the wrong and the right word."""

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

VOWELS = "aeiou"
#: Pairs of spellings that sound alike, and are taken for each other.
ALIKE = [
    ("ie", "ei"),
    ("ance", "ence"),
    ("able", "ible"),
    ("c", "s"),
    ("ph", "f"),
    ("er", "or"),
    ("y", "i"),
    ("ous", "us"),
]


def mistake(word: str, draw: random.Random) -> str:
    """The word with one slip: a letter doubled, lost, swapped, another vowel, or what sounds alike."""
    at = draw.randrange(len(word))
    kind = draw.choice(["double", "undouble", "lose", "swap", "vowel", "alike", "insert"])
    doubled = [k for k in range(1, len(word)) if word[k] == word[k - 1]]
    vowels = [k for k, letter in enumerate(word) if letter in VOWELS]
    if kind == "undouble" and doubled:
        at = draw.choice(doubled)
        return word[:at] + word[at + 1 :]
    if kind == "vowel" and vowels:
        at = draw.choice(vowels)
        return word[:at] + draw.choice(VOWELS) + word[at + 1 :]
    if kind == "alike":
        one, other = draw.choice([pair[:: draw.choice((1, -1))] for pair in ALIKE])
        return word.replace(one, other, 1)
    if kind == "swap" and len(word) > 1:
        at = min(at, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "insert":
        return word[:at] + draw.choice("abcdefghijklmnopqrstuvwxyz") + word[at:]
    if kind == "lose" and len(word) > 2:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at] + word[at:]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, nargs="+", help="text files")
    parser.add_argument("--least", type=int, default=3, help="words must occur so many times")
    parser.add_argument("--copies", type=int, default=8, help="wrong spellings of each word")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = Counter[str]()
    for path in options.texts:
        counts.update(re.findall(r"[a-z]{3,}", path.read_text("utf-8").lower()))
    draw = random.Random(options.seed)
    for word in sorted(word for word, count in counts.items() if count >= options.least):
        for copy in range(options.copies):
            wrong = mistake(word, draw)
            if copy % 3 == 2:
                wrong = mistake(wrong, draw)
            sys.stdout.write(f"{wrong}\t{word}\n")


if __name__ == "__main__":
    main()
