"""Captions without a model: caption_baselines.py TRAIN TEST --folder PICTURES, two tables.

nearest   a caption of the training picture whose pixels, of 16 x 16, are the nearest.
constant  one caption for all pictures: of those of the training, the one whose words agree best with all
          others (mean F1 of the sets of words).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from throughtime.data.captioned import Captioned, read_captioned
from throughtime.train.captions import caption_metrics

SIZE = 16


def nearest(train: Captioned, test: Captioned) -> list[str]:
    known = np.stack(train.pixels).reshape(len(train), -1).astype(np.float32)
    new = np.stack(test.pixels).reshape(len(test), -1).astype(np.float32)
    distances = (known**2).sum(1) - 2 * new @ known.T
    return [train.captions[k][0] for k in distances.argmin(1)]


def constant(train: Captioned, test: Captioned) -> list[str]:
    captions = [caption for each in train.captions for caption in each]
    words = {word: k for k, word in enumerate({word for caption in captions for word in caption.split()})}
    present = np.zeros((len(captions), len(words)), dtype=np.float32)
    for row, caption in enumerate(captions):
        present[row, [words[word] for word in caption.split()]] = 1
    lengths = present.sum(1)
    agreement = 2 * present @ present.T / (lengths + lengths[:, None])
    return [captions[agreement.mean(1).argmax()]] * len(test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    train, test = (
        read_captioned([path], SIZE, folder=arguments.folder) for path in (arguments.train, arguments.test)
    )
    for baseline in (nearest, constant):
        print(json.dumps({baseline.__name__: caption_metrics(baseline(train, test), test.captions)}))


if __name__ == "__main__":
    main()
