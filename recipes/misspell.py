"""The words of a text with mistakes made in them, as a table of the wrong and the right word.

With --apart a tenth of the words go to a second table, for validation on words that training does not have.
"""

import argparse
import math
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
    """The word with a slip: a letter doubled, lost, swapped, another vowel, or what sounds alike.

    Now and then what is drawn leaves it as it is.
    """
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, nargs="+", help="text files")
    parser.add_argument("--least", type=int, default=3, help="words must occur so many times")
    parser.add_argument(
        "--copies", type=int, default=3, help="wrong spellings each time a word is twice as frequent"
    )
    parser.add_argument("--apart", type=Path, help="file for a tenth of the words")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = Counter[str]()
    for path in options.texts:
        counts.update(re.findall(r"[a-z]{3,}", path.read_text("utf-8").lower()))
    draw = random.Random(options.seed)
    tables: tuple[list[str], list[str]] = [], []
    for word in sorted(word for word, count in counts.items() if count >= options.least):
        # What is frequent is what is meant more often.
        copies = options.copies * (1 + int(math.log2(counts[word] / options.least)))
        wrongs = [mistake(word, draw) for _ in range(copies)]
        wrongs[2::3] = [mistake(wrong, draw) for wrong in wrongs[2::3]]
        apart = options.apart is not None and draw.random() < 0.1
        tables[apart].extend(f"{wrong}\t{word}\n" for wrong in dict.fromkeys(wrongs))
    sys.stdout.writelines(tables[0])
    if options.apart is not None:
        options.apart.write_text("".join(tables[1]), "utf-8")


if __name__ == "__main__":
    main()
