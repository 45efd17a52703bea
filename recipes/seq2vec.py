"""Vectors of sequences, learned without their labels: the sequences as words, and labels beside the vectors.

words    write a column of a csv file as text: each sequence as its overlapping k-mers, on a line
labels   write a parquet file: the vectors that `throughtime embed` made of these lines, and their labels
"""

import argparse
import csv
import sys
from pathlib import Path

import pyarrow
from pyarrow import parquet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
commands = parser.add_subparsers(dest="command", required=True)
words = commands.add_parser("words")
words.add_argument("table", type=Path)
words.add_argument("column")
words.add_argument("-k", type=int, default=3, help="characters of a k-mer")
labels = commands.add_parser("labels")
labels.add_argument("table", type=Path)
labels.add_argument("column")
labels.add_argument("vectors", type=Path, help="what embed wrote")
labels.add_argument("out", type=Path)
options = parser.parse_args()

with options.table.open(newline="") as file:
    cells = [row[options.column].strip() for row in csv.DictReader(file)]
if options.command == "words":
    for cell in cells:
        kmers = (cell[at : at + options.k] for at in range(len(cell) - options.k + 1))
        sys.stdout.write(" ".join(kmers) + "\n")
else:
    made = parquet.read_table(options.vectors)
    parquet.write_table(made.append_column("label", pyarrow.array(cells)), options.out)
