"""The captioner: what is read, what keeps together, how captions are looked for, pictures of attention."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from toys import toy_config

import throughtime
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.tasks.captioner import CaptionerConfig, CaptionerTask, CaptionTaskConfig
from throughtime.tasks.search import SearchConfig
from throughtime.train.checkpoint import read_tensors
from throughtime.train.run import Run

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the toy's pictures, and of a run on them that looks."""
    folder = tmp_path_factory.mktemp("captioner")
    task, config = config_of(folder, max_epochs=20)
    task.train(config, folder / "run", QUIET)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    return throughtime.load(folder / "run")


@pytest.fixture
def search(trained):
    """The trained task with another search."""

    def other(**options):
        task = copy.copy(trained)
        task.config = task.config.model_copy(update={"search": SearchConfig(**options)})
        return task

    return other


def config_of(folder, data=(), model=(), **training):
    """The toy's configuration with attention and other options."""
    task, config = toy_config("captioner", folder, **training)
    data = config.data.model_copy(update=dict(data))
    return task, config.model_copy(
        update={"data": data, "model": config.model.model_copy(update={"model": "attention"} | dict(model))}
    )


def test_a_picture_is_either_for_training_or_for_validation(folder):
    task, config = config_of(folder)
    corpus = task.read(config)
    names = [{path.name for path in part.paths} for part in (corpus.train, corpus.valid)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 60
    assert all(len(captions) == 2 for part in (corpus.train, corpus.valid) for captions in part.captions)


def test_a_batch_has_each_picture_once_and_all_its_captions(trained):
    part = trained.open(trained.config.data.paths).select([5, 2, 9])
    batch = next(b for b in [trained.batches(part).batch(0, 0)])
    assert batch.source.shape == (3, 3, 16, 16) and batch.rows.tolist() == [0, 0, 1, 1, 2, 2]
    shown = [trained.tokeniser.decode(row[row > 0].tolist()) for row in batch.targets]
    for k, caption in enumerate(shown):
        [place] = [j for j in range(3) if np.array_equal(part.pixels[j], batch.source[batch.rows[k]].numpy())]
        assert caption in part.captions[place]
    assert batch.steps == sum(len(c.split()) + 1 for captions in part.captions for c in captions)


@pytest.mark.parametrize("model", ["initial-state", "conditioned"])
def test_the_other_decoders_learn_the_toy(folder, tmp_path, model):
    task, config = config_of(folder, model={"model": model}, max_epochs=20)
    trained = task.train(config, tmp_path / "run", QUIET)
    assert trained.valid["accuracy"] > 0.9


def test_what_looks_answers_alone_as_in_a_batch(search, folder):
    task, inputs = search(attention=True), [folder / f"{k}.png" for k in range(5)]
    for alone, together in zip([task.answer([each])[0] for each in inputs], task.answer(inputs), strict=True):
        assert alone["caption"] == together["caption"]
        assert alone["log_prob"] == pytest.approx(together["log_prob"], abs=1e-5)
        torch.testing.assert_close(
            torch.tensor(alone["attention"]["weights"]), torch.tensor(together["attention"]["weights"])
        )


def test_the_state_of_what_looks_says_nothing_of_the_picture(trained, folder):
    assert trained.embed([folder / "0.png"]).shape == (1, 24)
    with pytest.raises(ConfigError, match='no recurrence, and so no state: take the "pooled" vector'):
        trained.embed([folder / "0.png"], "state")


def test_captions_are_said_and_scored(trained, folder):
    [answer] = trained.answer([folder / "0.png"])
    assert answer.keys() == {"input", "caption", "log_prob"} and answer["log_prob"] < 0
    assert answer["caption"] in ("a red square", "it is red")
    assert trained.show(answer) == answer["caption"]


def test_several_captions_come_with_their_probabilities(search, folder):
    task = search(n_best=3, beams=4)
    [answer] = task.answer([folder / "0.png"])
    assert len({each["caption"] for each in answer["n_best"]}) == 3
    assert task.show(answer).count("\n") == 2
    assert {"a red square", "it is red"} == {each["caption"] for each in answer["n_best"][:2]}


def test_drawn_captions_depend_on_the_picture_and_the_seed_alone(search, folder):
    inputs = [folder / f"{k}.png" for k in range(6)]
    task = search(temperature=1.5, seed=4)
    together = [answer["caption"] for answer in task.answer(inputs)]
    assert together == [task.answer([each])[0]["caption"] for each in inputs]
    assert together != [answer["caption"] for answer in search(temperature=1.5, seed=5).answer(inputs)]


def test_attention_has_a_weight_for_each_word_and_place(search, folder):
    [answer] = search(attention=True).answer([folder / "8.png"])
    looked = answer["attention"]
    assert looked["words"] == [*answer["caption"].split(), "<end>"] and looked["grid"] == [4, 4]
    weights = torch.tensor(looked["weights"])
    assert weights.shape == (len(looked["words"]), 16)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert json.loads(json.dumps(answer)) == answer


def test_a_model_without_attention_says_so(folder, tmp_path):
    task, config = config_of(folder, model={"model": "initial-state"}, max_epochs=1)
    task.train(config, tmp_path / "run", QUIET)
    model = throughtime.load(tmp_path / "run")
    with pytest.raises(ConfigError, match='"initial-state" has no attention to look at'):
        model.draw(model.answer([folder / "0.png"])[0])
    assert (tmp_path / "run/captions.png").exists() and not (tmp_path / "run/attention.png").exists()


def test_figures_are_drawn_into_the_run_and_for_other_data(trained, folder, tmp_path):
    assert (folder / "run/captions.png").exists() and (folder / "run/attention.png").exists()
    report = trained.report(trained.config.data.paths)
    assert {path.name for path in report.draw(tmp_path)} == {"captions.png", "attention.png"}
    assert report.metrics.keys() == {"loss", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "accuracy"}
    assert trained.signatures().keys() == report.metrics.keys() - {"loss", "accuracy"}


def test_a_file_names_pictures(trained, folder):
    assert list(trained.inputs(folder / "3.png")) == [str(folder / "3.png")]
    (folder / "list.txt").write_text("3.png\n1.png\n")
    assert list(trained.inputs(folder / "list.txt")) == [str(folder / "3.png"), str(folder / "1.png")]
    assert len(list(trained.inputs(folder / "data.tsv"))) == 60


def test_a_damaged_picture_is_refused_with_its_row(folder, tmp_path):
    task, config = config_of(tmp_path)
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1 of 60 pictures cannot be read; .*data.tsv, line 9: .*4.png"):
        task.train(config, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()
    _, config = config_of(tmp_path, data={"skip_damaged": True}, max_epochs=1)
    task.train(config, tmp_path / "run", QUIET)


def test_long_captions_are_cut_and_counted(folder, caplog):
    task, config = config_of(folder, data={"max_length": 2})
    made = task(config, task.learn(config, task.read(config).train))
    assert made.longest == 2
    made.encode(made.open(config.data.paths))
    assert "120 captions have more than 2 tokens" in caplog.text


def test_options_that_nothing_reads_are_refused():
    with pytest.raises(ConfigError, match="--fine-tune is for a pretrained network"):
        CaptionerConfig(fine_tune=True)
    with pytest.raises(ConfigError, match="--channels are not read with --backbone"):
        CaptionerConfig(backbone=Path("resnet"), channels=(8, 16))
    with pytest.raises(ConfigError, match=r"--doubly-stochastic is not read with --model initial-state"):
        CaptionerConfig(model="initial-state", doubly_stochastic=1.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": {"model": "conditioned", "cell": "gru"}}, "--cell is not read with --model conditioned"),
        ({"data": {"every": 2}}, "--every and --rate say which frames of clips are read"),
    ],
)
def test_options_of_clips_are_refused_for_pictures(folder, tmp_path, changed, said):
    task, config = config_of(folder, **changed)
    with pytest.raises(ConfigError, match=said):
        task.train(config, tmp_path / "run", QUIET)


@pytest.mark.parametrize("size", [12, 4, 2])
def test_a_size_that_cannot_be_halved_is_refused(folder, tmp_path, size):
    task, config = config_of(folder, data={"size": size}, model={"channels": (8, 16, 8)})
    with pytest.raises(ConfigError, match=f"--size must be a multiple of 8 from 16 on, got {size}"):
        task.train(config, tmp_path / "run", QUIET)


def test_word_vectors_begin_the_embedding(folder, tmp_path):
    (tmp_path / "vectors.txt").write_text("red " + " ".join(["0.5"] * 24) + "\n")
    task, config = config_of(folder, data={"vectors": tmp_path / "vectors.txt"})
    made = task(config, task.learn(config, task.read(config).train))
    made.prepare()
    assert (made.model.embedding.weight[made.tokeniser.encode("red")[0]] == 0.5).all()


def test_a_backbone_is_put_into_the_run_which_needs_its_folder_no_more(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    network = transformers.ResNetModel(transformers.ResNetConfig(**sizes))
    network.save_pretrained(tmp_path / "resnet")
    options = {"backbone": tmp_path / "resnet", "channels": CaptionerConfig().channels}
    task, config = config_of(folder, model=options, max_epochs=1)
    task.train(config, tmp_path / "run", QUIET)
    (tmp_path / "resnet").rename(tmp_path / "gone")
    run = Run.open(tmp_path / "run")
    known, _ = read_tensors(run.model)
    for name, value in network.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(known[f"encoder.grid.network.network.{name}"], value)
    model = throughtime.load(tmp_path / "run")
    assert model.answer([folder / "0.png"])[0]["log_prob"] < 0
    task.train(config, tmp_path / "more", QUIET, run)  # which begins from that run
    processor = run.read_processor()
    with pytest.raises(RunError, match="description of the backbone is damaged"):
        CaptionerTask(config, processor | {"backbone": {"network": processor["backbone"]["network"]}})


def test_from_the_command_line(folder, tmp_path):
    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "throughtime.cli.main", *map(str, arguments)],
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    code, said, _ = command(
        "predict", folder / "run", folder / "0.png", "--plot", tmp_path / "a.png", "--json"
    )
    assert code == 0 and json.loads(said)["caption"]
    with Image.open(tmp_path / "a.png") as figure:
        assert figure.size[0] > 300
    code, _, said = command("predict", folder / "run", tmp_path / "none.png")
    assert code == 2 and "none.png is not there" in said


def test_the_configuration_is_read_back(tmp_path):
    config = CaptionTaskConfig(model={"fine_tune": True, "backbone": tmp_path})
    (tmp_path / "c.toml").write_text(config.to_toml())
    assert CaptionTaskConfig.from_toml(tmp_path / "c.toml") == config
