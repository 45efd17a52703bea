import json
import math
import signal

import pytest
import torch
from toy import toy_fit, toy_model, toy_streams

from throughtime import storage
from throughtime.errors import DivergedError, RunError, StoppedError, StorageError
from throughtime.train.checkpoint import Checkpoint, load_weights, read_tensors, weights_of
from throughtime.train.run import Run


class Interrupting:
    """Batches that send this process a signal when one of them is fetched."""

    def __init__(self, batches, fetch, number=signal.SIGINT, times=1):
        self.batches, self.fetch, self.count = batches, fetch, 0
        self.number, self.times = number, times

    def __len__(self):
        return len(self.batches)

    def batch(self, number, epoch):
        self.count += 1
        if self.count == self.fetch:
            for _ in range(self.times):
                signal.raise_signal(self.number)
        return self.batches.batch(number, epoch)


class Poisoned:
    """Batches that put NaN into the model: at a fetch, or at the first `times` fetches of batch `number`."""

    def __init__(self, batches, model, number=-1, times=1, fetch=-1):
        self.batches, self.model, self.number, self.left = batches, model, number, times
        self.fetch, self.count = fetch, 0

    def __len__(self):
        return len(self.batches)

    def batch(self, number, epoch):
        self.count += 1
        if self.count == self.fetch or (number == self.number and self.left):
            self.left -= 1
            with torch.no_grad():
                self.model.head.bias[2] = torch.nan
        return self.batches.batch(number, epoch)


def equal(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items()) and a.keys() == b.keys()


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("fetch", [4, 9, 20, 23])  # in the first epoch, at its end, in the second
def test_a_run_that_stopped_goes_on_to_the_same_weights(tmp_path, optimizer, fetch):
    options = {"optimizer": optimizer, "learning_rate": 0.05}
    whole, stopped = toy_model(), toy_model()
    toy_fit(whole, toy_streams(), tmp_path / "whole", **options)
    before, finished = toy_fit(stopped, Interrupting(toy_streams(), fetch), tmp_path / "cut", **options)
    assert not finished and 0 < before.step < 2 * len(toy_streams())
    assert not equal(weights_of(whole), weights_of(stopped))
    resumed = toy_model(seed=9)
    after, finished = toy_fit(resumed, toy_streams(), tmp_path / "cut", resume=True, **options)
    assert finished and after.step == 2 * len(toy_streams())
    assert equal(weights_of(whole), weights_of(resumed))
    one, two = (Checkpoint.load(Run(tmp_path / name).last) for name in ("whole", "cut"))
    assert equal(one.tensors, two.tensors)


def test_interrupted_time_does_not_count_and_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    toy_fit(toy_model(), Interrupting(toy_streams(), 3), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_bounded_by_time_stops_in_time(tmp_path):
    progress, finished = toy_fit(
        toy_model(), toy_streams(), tmp_path / "run", max_epochs=None, max_minutes=0.01
    )
    assert finished and 0.6 <= progress.seconds < 3


def test_training_learns_and_records(tmp_path):
    model, streams = toy_model(dropout=0.0), toy_streams(60, 2, 10)
    progress, _ = toy_fit(model, streams, tmp_path / "run", max_epochs=100, learning_rate=0.03)
    run = Run(tmp_path / "run")
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < 0.3 < 1.5 < losses[0]
    assert records[-1]["step"] == progress.step == 100 * len(streams)
    assert sum("valid" in record for record in records) >= 1
    assert run.samples.read_text().startswith("=== step 0 (at first) ===\nsample\n\n=== step ")
    assert run.curves.read_bytes()[:4] == b"\x89PNG"


def test_the_best_weights_are_kept(tmp_path):
    model, seen = toy_model(), []
    losses = iter([3.0, 1.0, 2.0, *[2.5] * 20])

    def validate():
        seen.append({name: value.clone() for name, value in weights_of(model).items()})
        return {"loss": next(losses)}

    progress, _ = toy_fit(model, toy_streams(4000), tmp_path / "run", validate=validate)
    run = Run(tmp_path / "run")
    assert len(seen) > 2 and progress.best_score == 1.0
    assert equal(read_tensors(run.model)[0], seen[1])
    assert run.best_metrics() == {"loss": 1.0}


def test_patience_ends_a_run_early(tmp_path):
    losses = iter(range(1, 100))
    progress, finished = toy_fit(
        toy_model(), toy_streams(4000), tmp_path / "run", validate=lambda: {"loss": next(losses)}, patience=2
    )
    assert finished and progress.stale == 2 and progress.epoch < 2


@pytest.mark.parametrize(("option", "bound"), [("clip_norm", 1e-3), ("clip_value", 1e-5)])
def test_clipping_bounds_the_gradient_and_is_counted(tmp_path, option, bound):
    model = toy_model()
    norms = []
    model.head.bias.register_post_accumulate_grad_hook(lambda p: norms.append(p))
    progress, _ = toy_fit(
        model, toy_streams(), tmp_path / "run", **({"clip_norm": math.inf} | {option: bound})
    )
    assert progress.clipped == progress.step
    gradients = [p.grad for p in model.parameters()]
    if option == "clip_norm":
        assert torch.nn.utils.get_total_norm(gradients) <= bound * 1.01
    else:
        assert max(g.abs().max() for g in gradients) <= bound


def test_the_guard_names_what_went_bad_goes_back_and_goes_on(tmp_path, caplog):
    model = toy_model()
    batches = Poisoned(toy_streams(), model, number=12, times=1)
    progress, finished = toy_fit(model, batches, tmp_path / "run")
    assert finished and progress.recoveries == 1 and progress.learning_rate_scale == 0.5
    assert progress.step == 2 * len(batches)
    assert all(value.isfinite().all() for value in weights_of(model).values())
    message = caplog.text
    assert "NaN in the weight head.bias" in message and "half the learning rate" in message


@pytest.mark.parametrize("fetch", range(47, 55))
def test_the_guard_never_takes_a_bad_state_for_a_good_one(tmp_path, fetch):
    model = toy_model()
    batches = Poisoned(toy_streams(), model, fetch=fetch)
    progress, finished = toy_fit(model, batches, tmp_path / "run", max_epochs=4)
    assert finished and progress.recoveries == 1 and progress.step == 4 * len(batches)
    assert Checkpoint.load(Run(tmp_path / "run").last).is_finite()


def test_a_validated_model_outlives_a_recovery(tmp_path):
    """The guard goes back to a step before the validation; the best model and its record must stay."""
    model = toy_model()
    batches = Poisoned(toy_streams(), model, fetch=38)
    losses, best = iter([1.0, *[1.5] * 40]), []

    def validate():
        best.append({name: value.clone() for name, value in weights_of(model).items()})
        return {"loss": next(losses)}

    folder = tmp_path / "run"
    progress, _ = toy_fit(model, batches, folder, max_epochs=4, validate=validate)
    run = Run(folder)
    assert progress.recoveries == 1 and progress.best_score == 1.0
    assert equal(read_tensors(run.model)[0], best[0]) and run.best_metrics() == {"loss": 1.0}
    steps = [record["step"] for record in run.read_metrics()]
    assert steps == sorted(steps)


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path):
    losses = iter([math.nan, 2.0, *[math.nan] * 40])
    model = toy_model()
    progress, _ = toy_fit(model, toy_streams(4000), tmp_path / "run", validate=lambda: {"loss": next(losses)})
    run = Run(tmp_path / "run")
    assert progress.best_score == 2.0 and run.best_metrics() == {"loss": 2.0}
    assert "NaN" not in run.metrics.read_text()


def test_sigterm_is_as_good_as_ctrl_c(tmp_path):
    progress, finished = toy_fit(
        toy_model(), Interrupting(toy_streams(), 9, signal.SIGTERM), tmp_path / "run"
    )
    assert not finished
    assert Checkpoint.load(Run(tmp_path / "run").last).progress.step == progress.step > 0


def test_ctrl_c_twice_stops_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="--resume"):
        toy_fit(toy_model(), Interrupting(toy_streams(), 9, times=2), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_last_step_leaves_a_finished_run(tmp_path, monkeypatch):
    model, streams, calls = toy_model(), toy_streams(), []
    loss = model.loss

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2 * len(streams):
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(model, "loss", interrupted)
    losses = iter(range(99, 0, -1))
    progress, finished = toy_fit(
        model, streams, tmp_path / "run", validate=lambda: {"loss": float(next(losses))}
    )
    assert finished and progress.step == progress.best_step == 2 * len(streams)
    assert equal(read_tensors(Run(tmp_path / "run").model)[0], weights_of(model))


def test_an_interrupted_run_has_the_model_it_stopped_with(tmp_path):
    model = toy_model()
    toy_fit(model, Interrupting(toy_streams(4000), 5), tmp_path / "run")
    assert equal(read_tensors(Run(tmp_path / "run").model)[0], weights_of(model))


def test_the_guard_gives_up_after_three_times_and_keeps_the_last_good_state(tmp_path):
    model = toy_model()
    batches = Poisoned(toy_streams(), model, number=12, times=99)
    with pytest.raises(DivergedError, match=r"diverged 4 times.*NaN in the weight head.bias"):
        toy_fit(model, batches, tmp_path / "run")
    saved = Checkpoint.load(Run(tmp_path / "run").last)
    assert saved.is_finite()
    assert saved.progress.recoveries == 0 and saved.progress.learning_rate_scale == 1.0
    load_weights(toy_model(), read_tensors(Run(tmp_path / "run").model)[0])


def test_a_failing_disk_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    model, folder = toy_model(), tmp_path / "run"
    toy_fit(model, toy_streams(), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert len(before) == 3

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device.*still there.*--resume"):
        toy_fit(model, toy_streams(), folder, resume=True, max_epochs=3)
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == before
    assert not list(folder.rglob(".*"))


def test_records_after_the_checkpoint_are_made_anew_on_resume(tmp_path):
    folder = tmp_path / "run"
    toy_fit(toy_model(), Interrupting(toy_streams(), 10), folder)
    run = Run(folder)
    step = Checkpoint.load(run.last).progress.step
    run.append(run.metrics, json.dumps({"step": step + 5, "loss": 9.0}) + '\n{"step": 1')
    toy_fit(toy_model(), toy_streams(), folder, resume=True)
    steps = [record["step"] for record in run.read_metrics()]
    assert steps == sorted(steps)
    assert not any(record.get("loss") == 9.0 for record in run.read_metrics())


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_checkpoint_is_said_to_be(tmp_path, damage):
    folder = tmp_path / "run"
    toy_fit(toy_model(), toy_streams(), folder)
    last = Run(folder).last
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(RunError, match=r"last.safetensors is damaged"):
        toy_fit(toy_model(), toy_streams(), folder, resume=True, max_epochs=3)


def test_weights_of_another_model_are_refused(tmp_path):
    toy_fit(toy_model(), toy_streams(), tmp_path / "run")
    weights = read_tensors(Run(tmp_path / "run").model)[0]
    with pytest.raises(RunError, match="do not fit the model"):
        load_weights(toy_model(cell="gru"), weights)
