"""How long a transcriber in one direction takes to listen: python benchmarks/listening.py RUN TABLE

Each recording comes in pieces of 20 ms, on one core. The real-time factor is seconds of work for a second of
sound; the time of a piece is what a listener waits for.
"""

import sys
import time
from pathlib import Path

import torch

import throughtime
from throughtime.data.audio import read_sound


def main(run: str, table: str) -> None:
    torch.set_num_threads(1)
    task = throughtime.load(run)
    sound, spent = 0.0, list[float]()
    for path in task.inputs(Path(table)):
        recording = read_sound(Path(path))
        samples = recording.converted(recording.rate)
        stream, size = task.stream(recording.rate), recording.rate // 50
        for at in range(0, len(samples), size):
            begin = time.perf_counter()
            stream.feed(samples[at : at + size])
            spent.append(time.perf_counter() - begin)
        stream.finish()
        sound += stream.seconds
    spent.sort()
    print(f"{sound:.0f} s of sound, real-time factor {sum(spent) / sound:.3f}")
    print(f"a piece of 20 ms: median {1000 * spent[len(spent) // 2]:.2f} ms", end=", ")
    print(f"99 % within {1000 * spent[len(spent) * 99 // 100]:.2f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
