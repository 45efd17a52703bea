"""ChatterBot's YAML files as a table: a question, and each of its answers."""

import argparse
import sys
from pathlib import Path

import yaml

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="folder of .yml files with `conversations`: lists of turns")
options = parser.parse_args()

for path in sorted(options.folder.glob("*.yml")):
    for turns in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
        said = [" ".join(str(turn).split()) for turn in turns]
        # The first turn is the question; each of the others is an answer to it.
        for answer in said[1:]:
            sys.stdout.write(f"{said[0]}\t{answer}\n")
