"""The examples: each runs as a person runs it, and on ThroughTime when one line of it is changed."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import throughtime.nn

TAGGER = Path(__file__).parents[1] / "examples" / "tagger.py"
THEIRS, OURS = "import torch.nn as nn\n", "import throughtime.nn as nn\n"


def load(source):
    """The module that the source makes."""
    module = ModuleType("example")
    exec(compile(source, TAGGER, "exec"), module.__dict__)
    return module


def test_the_tagger_learns_and_prints_its_loss():
    done = subprocess.run([sys.executable, TAGGER], capture_output=True, text=True, check=True)
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert losses[0] > 0.6
    assert losses[-1] < 0.1


def test_the_tagger_is_the_same_with_one_line_changed(monkeypatch):
    source = TAGGER.read_text(encoding="utf-8")
    assert source.count(THEIRS) == 1
    model, losses = load(source).train(steps=30)
    assert type(model.rnn) is torch.nn.LSTM

    def closed(*arguments):
        raise AssertionError("torch's LSTM ran")

    monkeypatch.setattr(torch.nn.LSTM, "forward", closed)
    changed, changed_losses = load(source.replace(THEIRS, OURS)).train(steps=30)
    assert type(changed.rnn) is throughtime.nn.LSTM
    assert str(changed.rnn.explain()) == "llvm"
    assert losses[-1] < 0.8 * losses[0]
    assert changed_losses == pytest.approx(losses, abs=1e-4)
    with pytest.raises(AssertionError, match="torch's LSTM ran"):
        model(torch.zeros(1, 2, dtype=torch.long), torch.tensor([2]))
