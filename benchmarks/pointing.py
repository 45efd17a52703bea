"""Where a captioner looks: pointing.py RUN captions.jsonl, of a world that `throughtime world` made.

The captions are those that the run finds for the pictures. Of each that is true, the words that name a thing
are known, and so is the thing's box: a word points at it where the peak of its attention, enlarged to the
picture, lies in the box (the pointing game, Zhang et al. 2016). By chance so many would as boxes cover of the
picture.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

import throughtime
from throughtime.data.pictures import picture_paths
from throughtime.data.tables import read_table
from throughtime.insight.looks import enlarge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    task = throughtime.load(arguments.run)
    if task.model.attention is None or task.config.data.tokens != "word":
        raise SystemExit(f"{arguments.run} has no attention for each word")
    table, true = read_table(arguments.table), defaultdict(dict)
    for row, path in enumerate(picture_paths(table, "image", arguments.table.parent)):
        true[path][table.column("caption")[row]] = table.column("objects")[row], table.column("named")[row]
    task.config = task.config.model_copy(
        update={"search": task.config.search.model_copy(update={"attention": True})}
    )
    right, pointed, covered = 0, [], []
    for answer, captions in zip(task.predict(map(str, true)), true.values(), strict=True):
        if answer["caption"] not in captions:
            continue
        right += 1
        boxes, named = captions[answer["caption"]]
        looked = answer["attention"]
        with Image.open(answer["input"]) as picture:
            size = picture.width
        for thing, weights in zip(named, looked["weights"][:-1], strict=True):
            if thing is None:
                continue
            large = enlarge(np.array(weights, dtype=np.float32).reshape(looked["grid"]), (size, size))
            y, x = np.unravel_index(large.argmax(), large.shape)
            left, top, end, bottom = boxes[thing]
            pointed.append(left <= x < end and top <= y < bottom)
            covered.append((end - left) * (bottom - top) / size**2)
    if not pointed:
        raise SystemExit(f"no caption of {arguments.run} is true")
    result = {"pictures": len(true), "right": right / len(true), "words": len(pointed)}
    print(json.dumps(result | {"pointing": float(np.mean(pointed)), "chance": float(np.mean(covered))}))


if __name__ == "__main__":
    main()
