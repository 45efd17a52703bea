"""BLEU and chrF are those of sacrebleu's own command."""

import json
import subprocess
import sys

import pytest

from throughtime.train.translation import metrics_by_length, translation_metrics, translation_signatures

RIGHT = [
    'The cat said "no", and sat on the mat.',
    "Three dogs ran to the 2nd house!",
    "It is cold & wet today, isn't it?",
    "Füchse sehen   über 1,000 Äpfel.",
    "same",
]
MADE = [
    'The cat said "no" and sat on a mat.',
    "three dogs run to the 2nd house !",
    "",
    "Füchse sahen über 1,000 rote Äpfel.",
    "same",
]


def test_scores_and_signatures_are_those_of_the_command(tmp_path):
    (tmp_path / "made").write_text("\n".join(MADE) + "\n", "utf-8")
    (tmp_path / "right").write_text("\n".join(RIGHT) + "\n", "utf-8")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "right", "-i", tmp_path / "made"]
    options = ["-m", "bleu", "chrf", "--width", "12"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    own = {each["name"].lower().removesuffix("2"): each for each in json.loads(done.stdout)}
    metrics, signatures = translation_metrics(MADE, RIGHT), translation_signatures()
    for name in ("bleu", "chrf"):
        assert metrics[name] == pytest.approx(own[name]["score"], abs=1e-9)
        assert signatures[name] == own[name]["signature"]
    assert 10 < metrics["bleu"] < 90 and metrics["accuracy"] == 1 / 5


def test_what_is_right_has_the_highest_scores():
    assert translation_metrics(RIGHT, RIGHT) == pytest.approx({"bleu": 100, "chrf": 100, "accuracy": 1})
    assert translation_metrics(["x"], ["y"])["chrf"] == 0


def test_by_length_every_text_is_in_one_row_and_rows_are_of_like_size():
    inputs = [" ".join(["w"] * (1 + k % 8)) for k in range(40)]
    right = [f"{k} is right" for k in range(40)]
    outputs = [
        text if len(given.split()) <= 4 else "wrong" for given, text in zip(inputs, right, strict=True)
    ]
    rows = metrics_by_length(inputs, outputs, right)
    assert [(row["words_from"], row["words_to"], row["texts"]) for row in rows] == [
        (1, 2, 10),
        (3, 4, 10),
        (5, 6, 10),
        (7, 8, 10),
    ]
    assert [row["accuracy"] for row in rows] == [1, 1, 0, 0] and rows[0]["chrf"] == pytest.approx(100)
    assert [row["texts"] for row in metrics_by_length(["a b"] * 5, ["x"] * 5, ["x"] * 5)] == [5]
