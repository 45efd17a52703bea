"""Tables of spoken digits, and of strings of them, from recordings named DIGIT_SPEAKER_INDEX.wav.

    python benchmarks/spoken_digits.py fsdd.tar.gz FOLDER

unpacks the archive into FOLDER and writes there digits.{train,valid,test}.tsv, a digit a row, and
strings.{train,valid,test}.tsv: 2 to 7 digits of one speaker with silences of up to 0.2 s between them, drawn
from a seed. Indices 0-4 are the test, 5-17 the training, 18 and 19 the validation: no recording is in two.
"""

import argparse
import random
import tarfile
from pathlib import Path

import numpy as np
import soundfile

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PARTS = {"test": range(5), "train": range(5, 18), "valid": range(18, 20)}
#: Strings of each part.
STRINGS = {"train": 1500, "valid": 100, "test": 300}
LONGEST_SILENCE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    with tarfile.open(options.archive) as archive:
        archive.extractall(options.folder, filter="data")
    recordings = sorted(options.folder.glob("recordings/*_*_*.wav"))
    for part, indices in PARTS.items():
        chosen = [path for path in recordings if int(path.stem.split("_")[2]) in indices]
        write_table(
            options.folder / f"digits.{part}.tsv", [(path, WORDS[int(path.stem[0])]) for path in chosen]
        )
        rows = make_strings(chosen, options.folder / "strings" / part, STRINGS[part])
        write_table(options.folder / f"strings.{part}.tsv", rows)
        lines = "".join(f"{text}\n" for _, text in rows)
        (options.folder / f"strings.{part}.txt").write_text(lines)


def make_strings(recordings: list[Path], folder: Path, count: int) -> list[tuple[Path, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(folder.name)
    by_speaker: dict[str, list[Path]] = {}
    for path in recordings:
        by_speaker.setdefault(path.stem.split("_")[1], []).append(path)
    sounds = {path: soundfile.read(path, dtype="int16") for path in recordings}
    speakers, rows = sorted(by_speaker), []
    for number in range(count):
        chosen = draw.choices(by_speaker[draw.choice(speakers)], k=draw.randint(2, 7))
        pieces = []
        for path in chosen:
            samples, rate = sounds[path]
            pieces += [np.zeros(int(draw.uniform(0, LONGEST_SILENCE) * rate), np.int16), samples]
        path = folder / f"{number}.wav"
        soundfile.write(path, np.concatenate(pieces), rate)
        rows.append((path, " ".join(WORDS[int(each.stem[0])] for each in chosen)))
    return rows


def write_table(table: Path, rows: list[tuple[Path, str]]) -> None:
    lines = [f"{path.relative_to(table.parent)}\t{text}\n" for path, text in rows]
    table.write_text("path\ttext\n" + "".join(lines))


if __name__ == "__main__":
    main()
