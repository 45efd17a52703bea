"""Averaging: the mean of the weights since it began is what is validated and kept."""

import torch
from test_fit import Interrupting
from torch.nn.utils import parameters_to_vector
from toy import toy_fit, toy_model, toy_streams

from throughtime.train.average import Average
from throughtime.train.checkpoint import Checkpoint, load_weights, read_tensors, weights_of
from throughtime.train.run import Run


def test_the_mean_is_that_of_all_steps_and_is_swapped_in_for_a_while():
    model = torch.nn.Linear(2, 1)
    average, seen = Average.begin(model), []
    for step in range(5):
        with torch.no_grad():
            model.weight.fill_(step)
        average.add(model)
        seen.append(model.weight.clone())
    with average.in_place(model):
        assert torch.allclose(model.weight, torch.stack(seen).mean(0))
    assert torch.equal(model.weight, seen[-1])
    assert torch.allclose(average.values["weight"], torch.stack(seen).mean(0))


def test_running_statistics_are_averaged_and_what_is_no_number_is_not():
    model = torch.nn.BatchNorm1d(2)
    average = Average.begin(model)
    for step in range(5):
        model.running_mean.fill_(step)
        model.num_batches_tracked.fill_(step)
        average.add(model)
    with average.in_place(model):
        assert torch.allclose(model.running_mean, torch.tensor(2.0))
        assert model.num_batches_tracked == 4
    assert model.running_mean.tolist() == [4, 4]


def test_a_mean_goes_where_the_weights_are():
    model = torch.nn.Linear(2, 1, device="meta")
    average = Average({"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}, 1)
    average.add(model)
    assert all(value.is_meta for value in average.values.values())


def test_training_keeps_the_mean_of_the_last_part(tmp_path, monkeypatch):
    model, seen = toy_model(), []
    loss = model.loss

    def watched(*arguments):
        seen.append(parameters_to_vector(model.parameters()).detach().clone())
        return loss(*arguments)

    monkeypatch.setattr(model, "loss", watched)
    losses = iter(range(99, 0, -1))  # so that the last weights are the best
    progress, _ = toy_fit(
        model, toy_streams(), tmp_path / "run", average=0.5, validate=lambda: {"loss": float(next(losses))}
    )
    last = parameters_to_vector(model.parameters()).detach()
    after = [*seen[1:], last][progress.step // 2 :]
    load_weights(kept := toy_model(seed=3), read_tensors(Run(tmp_path / "run").model)[0])
    found = parameters_to_vector(kept.parameters()).detach()
    assert torch.allclose(found, torch.stack(after).mean(0), atol=1e-6)
    assert not torch.allclose(found, last, atol=1e-4)


def test_a_run_that_stopped_goes_on_to_the_same_mean(tmp_path):
    options = {"average": 0.25, "learning_rate": 0.05}
    toy_fit(toy_model(), toy_streams(), tmp_path / "whole", **options)
    toy_fit(toy_model(), Interrupting(toy_streams(), 23), tmp_path / "cut", **options)
    toy_fit(toy_model(seed=9), toy_streams(), tmp_path / "cut", resume=True, **options)
    one, two = (Checkpoint.load(Run(tmp_path / name).last) for name in ("whole", "cut"))
    assert any(name.startswith("average.") for name in one.tensors)
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(value, two.tensors[name]) for name, value in one.tensors.items())
    best = read_tensors(Run(tmp_path / "whole").model)[0]
    assert best.keys() == weights_of(toy_model()).keys()
