"""What holds for every task: an answer depends on its input alone, a run goes on as if it had not stopped."""

import itertools
import json
import math
import shutil
import signal

import pytest
import torch
from rich.console import Console
from toys import TOYS, toy_config, toy_inputs, toy_run

import throughtime
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.tasks.table import TASKS, find_task
from throughtime.train.checkpoint import Checkpoint
from throughtime.train.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a trained run of each task, made when it is asked for."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = toy_run(name, tmp_path_factory.mktemp(name))
        return made[name]

    return run


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


def same(one, other, within=1e-5):
    """Equal answers, but for the rounding of sums in another order."""
    if isinstance(one, float):
        return one == pytest.approx(other, abs=within)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], within) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(*each, within) for each in zip(one, other, strict=True))
    return one == other


def test_the_answer_for_an_input_does_not_depend_on_its_batch(runs, name):
    task, inputs = throughtime.load(runs(name)), toy_inputs(name, runs(name))
    alone = [task.answer([each])[0] for each in inputs]
    assert any(not same(a, b) for a, b in itertools.combinations(alone, 2))
    for order in (range(len(inputs)), reversed(range(len(inputs))), [*range(len(inputs))] * 3):
        order = list(order)
        together = task.answer([inputs[k] for k in order])
        assert all(same(alone[k], answer) for k, answer in zip(order, together, strict=True))


def test_predictions_come_in_order_and_as_they_are_asked_for(runs, name):
    task, inputs = throughtime.load(runs(name)), toy_inputs(name, runs(name)) * 4
    asked = []

    def arriving():
        for each in inputs:
            asked.append(each)
            yield each

    answers = task.predict(arriving(), rows=3)
    first = next(answers)
    assert len(asked) == 3
    assert same([first, *answers], task.answer(inputs))


def test_an_answer_is_json_and_can_be_shown(runs, name):
    task = throughtime.load(runs(name))
    for answer in task.answer(toy_inputs(name, runs(name))):
        assert json.loads(json.dumps(answer)) == answer
        assert isinstance(task.show(answer), str)


@pytest.mark.parametrize("kind", ["pooled", "state"])
def test_the_vector_of_an_input_does_not_depend_on_its_batch(runs, name, kind):
    task, inputs = throughtime.load(runs(name)), toy_inputs(name, runs(name))
    together = task.embed(inputs, kind)
    assert together.dim() == 2 and together.isfinite().all()
    for each, vector in zip(inputs, together, strict=True):
        assert torch.allclose(task.embed([each], kind)[0], vector, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_toy_is_learnt(runs, name):
    metrics = Run(runs(name)).best_metrics()
    assert TOYS[name].learnt(metrics), metrics


def test_a_run_that_ctrl_c_stopped_goes_on_to_the_same_weights(tmp_path, name, monkeypatch):
    task, config = toy_config(name, tmp_path, max_epochs=3)
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.3})})
    quiet = Console(quiet=True)
    assert task.train(config, tmp_path / "whole", quiet).finished
    batches = task.batches

    def interrupting(self, train):
        made = batches(self, train)
        give, at = made.batch, len(made) + 2

        def batch(number, epoch):
            if epoch * len(made) + number == at:
                signal.raise_signal(signal.SIGINT)
            return give(number, epoch)

        made.batch = batch
        return made

    monkeypatch.setattr(task, "batches", interrupting)
    assert not task.train(config, tmp_path / "cut", quiet).finished
    monkeypatch.undo()
    run = Run(tmp_path / "cut")
    assert 0 < Checkpoint.load(run.last).progress.epoch < 3
    assert task.resume(run, config, quiet).finished
    one, two = Checkpoint.load(Run(tmp_path / "whole").last), Checkpoint.load(run.last)
    assert one.progress.step == two.progress.step and one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(value, two.tensors[key]) for key, value in one.tensors.items())


def begun(name, folder, start, data, **training):
    """A run that begins as a copy of another, on other data."""
    task, config = toy_config(name, folder, **training)
    config = config.model_copy(update={"data": config.data.model_copy(update={"paths": (data,)})})
    task.train(config, folder / "run", Console(quiet=True), Run.open(start))
    return throughtime.load(folder / "run")


def test_a_run_that_begins_from_another_is_its_copy(runs, name, tmp_path):
    before = throughtime.load(runs(name))
    [data] = before.config.data.paths
    after = begun(name, tmp_path, runs(name), data, max_epochs=1, learning_rate=1e-12)
    inputs = toy_inputs(name, runs(name))
    for one, other in zip(before.answer(inputs), after.answer(inputs), strict=True):
        assert same(one, other, within=1e-3)  # the statistics of batch norms go on being counted


@pytest.mark.parametrize("name", [name for name, toy in TOYS.items() if toy.new])
def test_a_run_that_begins_from_another_learns_to_read_what_is_new(runs, name, tmp_path):
    before = throughtime.load(runs(name))
    [data] = before.config.data.paths
    text = data.read_text()
    for old, new in TOYS[name].new.items():
        text = text.replace(old, new)
    other = data.with_stem("new")
    other.write_text(text)
    after = begun(name, tmp_path, runs(name), other)
    known, grown = before.model.state_dict(), after.model.state_dict()
    assert any(value.shape != known[key].shape for key, value in grown.items())
    old_measure, new_measure = before.evaluate((data,)), after.evaluate((other,))
    assert after.quality(new_measure) > 0.8 * before.quality(old_measure) or name == "language-model"
    assert new_measure["loss"] < max(0.1, 2 * old_measure["loss"])
    # What had a number has the same one.
    for key in ("tokeniser", "words", "characters", "tags", "labels"):
        one, two = (
            Run.open(task_run).read_processor().get(key) for task_run in (runs(name), tmp_path / "run")
        )
        if isinstance(one, dict):
            one, two = (next(each[k] for k in ("words", "characters") if k in each) for each in (one, two))
        if one is not None:
            assert two[: len(one)] == one


def test_what_a_run_is_begun_from_must_be_of_the_same_kind(runs, name, tmp_path):
    task, config = toy_config(name, tmp_path)
    wide = config.model_copy(update={"model": config.model.model_copy(update={"hidden": 10})})
    with pytest.raises(ConfigError, match=r"the model is not that of .*; leave out what changes sizes$"):
        task.train(wide, tmp_path / "run", Console(quiet=True), Run.open(runs(name)))
    reading = TOYS[name].reading
    other = config.model_copy(update={"data": config.data.model_copy(update=reading)})
    with pytest.raises(ConfigError, match=rf"--{next(iter(reading))} was .* and cannot become"):
        task.train(other, tmp_path / "run", Console(quiet=True), Run.open(runs(name)))
    assert not (tmp_path / "run").exists()


def test_a_run_can_be_moved_and_needs_no_data(runs, name, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(runs(name), moved)
    shutil.rmtree(moved / "checkpoints")
    inputs = toy_inputs(name, runs(name))
    assert same(throughtime.load(moved).answer(inputs), throughtime.load(runs(name)).answer(inputs))
    assert {path.suffix for path in moved.rglob("*")} <= {
        ".toml",
        ".json",
        ".jsonl",
        ".safetensors",
        ".txt",
        ".png",
    }


def test_evaluation_is_what_validation_was(runs, name, tmp_path):
    task, config = toy_config(name, tmp_path)
    data = config.data.model_copy(update={"valid": config.data.paths})
    config = config.model_copy(update={"data": data})
    trained = task.train(config, tmp_path / "run", Console(quiet=True))
    again = throughtime.load(tmp_path / "run").evaluate(config.data.paths)
    assert again["loss"] == pytest.approx(trained.valid["loss"], rel=1e-3)
    assert all(math.isfinite(value) for value in again.values())


def test_going_on_with_other_data_is_refused(runs, name, tmp_path):
    task, config = toy_config(name, tmp_path, max_epochs=1)
    task.train(config, tmp_path / "run", Console(quiet=True))
    [path] = config.data.paths
    path.write_text(TOYS[name].changed(path.read_text()))
    with pytest.raises(RunError, match="are not those that"):
        task.resume(Run(tmp_path / "run"), config, Console(quiet=True))


def test_a_damaged_description_of_the_input_is_named(runs, name, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs(name), folder)
    (folder / "processor.json").write_text('{"labels": 3}')
    with pytest.raises(RunError, match="damaged"):
        throughtime.load(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00bad", b"caf\xe9\tx\n" * 9])
def test_what_is_no_text_is_named_with_its_file(name, tmp_path, content):
    task, config = toy_config(name, tmp_path)
    [path] = config.data.paths
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        task.train(config, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_task_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="language-model"):
        find_task("astrology")
