"""Strings of digits and the same turned round, as a table: the toy of encoders and decoders."""

import argparse
import random
import sys

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, default=20_000, help="how many pairs")
parser.add_argument("--longest", type=int, default=12, help="digits in the longest string")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

draw = random.Random(options.seed)
for _ in range(options.count):
    digits = "".join(draw.choices("0123456789", k=draw.randint(1, options.longest)))
    sys.stdout.write(f"{digits}\t{digits[::-1]}\n")
