import json
import math
import shutil

import pytest
import torch
from rich.console import Console

import throughtime
from throughtime.decode.cache import with_cache
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.tasks.language_model import (
    LanguageModelConfig,
    LanguageModelTask,
    ModelConfig,
    TextConfig,
)
from throughtime.train.config import StreamTraining
from throughtime.train.run import Run

VERSE = "the cat sat on the mat\nthe dog sat on the log\nthe cow sat on the bough\n"


def train(folder, text=VERSE * 40, tokens="char", resume=False, **options):
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    names = set(StreamTraining.model_fields)
    training = {"max_epochs": 40, "chunk_length": 16, "batch_size": 4, "learning_rate": 0.01}
    training |= {name: value for name, value in options.items() if name in names}
    model = {"hidden": 32} | {name: value for name, value in options.items() if name not in names}
    config = LanguageModelConfig(
        data=TextConfig(paths=(path,), tokens=tokens, vocabulary=275 if tokens == "bpe" else None),
        model=ModelConfig(**model),
        training=StreamTraining(**training),
    )
    quiet = Console(quiet=True)
    if resume:
        return LanguageModelTask.resume(Run.open(folder / "run"), config, quiet)
    return LanguageModelTask.train(config, folder / "run", quiet)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A trained run for each kind of token."""
    folders = {}
    for tokens in ("char", "word", "bpe"):
        folder = tmp_path_factory.mktemp(tokens)
        train(folder, tokens=tokens, dropout=0.0)
        folders[tokens] = folder / "run"
    return folders


@pytest.fixture(params=["char", "word", "bpe"])
def task(request, runs):
    return throughtime.load(runs[request.param])


def test_a_toy_text_is_learnt_with_every_kind_of_token(task, runs):
    metrics = Run(runs[task.tokeniser.kind]).best_metrics()
    assert metrics["bits_per_character"] < 0.25


def test_a_trained_model_writes_the_text_it_learnt(task):
    lines = task.generate("the cat sat", 120, temperature=0).splitlines()
    assert lines[0] == " on the mat"
    assert set(lines[1:-1]) <= set(VERSE.splitlines())


def test_generation_is_repeatable_by_its_seed_and_else_is_not(task):
    texts = [task.generate("the", 60, temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_stream_is_the_text_in_pieces(task):
    pieces = list(task.stream("the", 30, temperature=1.0, seed=3))
    assert len(pieces) <= 30 and "".join(pieces) == task.generate("the", 30, temperature=1.0, seed=3)


def test_what_was_never_seen_is_read_and_never_written(task):
    text = "日本語 Zebra\x00\t\n ﷺ"
    assert task.unknown(text) or task.tokeniser.kind == "bpe"
    assert math.isfinite(task.score(text).log_prob)
    assert isinstance(task.complete(text), list)
    made = task.generate(text, 80, temperature=5.0, seed=0)
    assert task.tokeniser.kind == "bpe" or not set(made) - set(VERSE)


def test_the_score_is_the_chain_rule(task):
    whole = task.score("the cat sat on the mat\n")
    assert sum(whole.log_probs) == pytest.approx(whole.log_prob)
    assert "".join(whole.tokens) == "the cat sat on the mat\n"
    metrics = whole.metrics
    assert metrics["loss"] == pytest.approx(-whole.log_prob / len(whole.tokens))
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["bits_per_character"] == pytest.approx(-whole.log_prob / math.log(2) / 23)


def test_score_and_evaluate_agree(task, tmp_path):
    (tmp_path / "held out.txt").write_text(VERSE * 3)
    scored, measured = task.score(VERSE * 3).metrics, task.evaluate((tmp_path / "held out.txt",))
    assert measured == pytest.approx(scored, rel=1e-4)


def test_documents_are_scored_each_from_its_beginning(task):
    ids = [0, *task.tokeniser.encode("the dog sat on the log\n").tolist()]
    tokens = torch.tensor(ids + ids)
    both, _ = task.model.log_probs_of(tokens[:-1], tokens[1:], task.model.begin(1))
    first, second = both[: len(ids) - 1], both[len(ids) :]
    assert torch.allclose(first, second, atol=1e-6)


def test_a_better_sentence_is_likelier(task):
    assert task.score("the cat sat").log_prob > task.score("the sat cat").log_prob


@pytest.mark.parametrize(("text", "best"), [("the cat sat on ", "the"), ("the dog sat on the l", "log")])
def test_the_likeliest_word_comes_first(task, text, best):
    words = task.complete(text, 3)
    assert words[0][0] == best
    assert words[0][1] > 0.5 and sum(p for _, p in words) <= 1 + 1e-6
    assert [p for _, p in words] == sorted((p for _, p in words), reverse=True)


def test_a_run_can_be_moved_and_holds_no_pickle(runs, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(runs["char"], moved)
    shutil.rmtree(moved / "checkpoints")
    before, after = throughtime.load(runs["char"]), throughtime.load(moved)
    assert before.generate("the", 20, temperature=0) == after.generate("the", 20, temperature=0)
    kinds = {path.suffix for path in runs["char"].rglob("*") if path.is_file()}
    assert kinds == {".toml", ".json", ".jsonl", ".safetensors", ".txt", ".png"}
    for path in runs["char"].rglob("*.safetensors"):
        assert path.read_bytes()[8:10] == b'{"'  # the header of safetensors, which is JSON


def test_going_on_needs_the_same_text(tmp_path):
    train(tmp_path, max_epochs=1)
    with pytest.raises(RunError, match=r"are not those that .* began with"):
        train(tmp_path, text="other " * 500, max_epochs=2, resume=True)


@pytest.mark.parametrize(("option", "value"), [("hidden", 48), ("batch_size", 8), ("optimizer", "sgd")])
def test_going_on_with_another_model_is_refused_and_harms_nothing(tmp_path, option, value):
    train(tmp_path, max_epochs=1)
    before = (tmp_path / "run" / "config.toml").read_text()
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} was .* cannot become {value}"):
        train(tmp_path, max_epochs=2, resume=True, **{option: value})
    assert (tmp_path / "run" / "config.toml").read_text() == before


def test_samples_are_drawn_without_dropout_and_training_goes_on_with_it(tmp_path, monkeypatch):
    modes = []
    stream = LanguageModelTask.stream

    def spy(self, *args, **options):
        modes.append(self.model.training)
        return stream(self, *args, **options)

    monkeypatch.setattr(LanguageModelTask, "stream", spy)
    train(tmp_path, max_epochs=2)
    assert modes and not any(modes)


def test_going_on_with_other_validation_text_is_refused(tmp_path):
    train(tmp_path, max_epochs=1)
    run = Run.open(tmp_path / "run")
    config = LanguageModelTask.read_config(run)
    (tmp_path / "valid.txt").write_text(VERSE)
    text = config.data.model_copy(update={"valid": (tmp_path / "valid.txt",)})
    with pytest.raises(RunError, match="training and validation"):
        LanguageModelTask.resume(run, config.model_copy(update={"data": text}), Console(quiet=True))


def test_a_damaged_checkpoint_leaves_the_configuration_as_it_was(tmp_path):
    train(tmp_path, max_epochs=1)
    run = Run.open(tmp_path / "run")
    before = run.config.read_text()
    run.last.write_bytes(b"nothing")
    with pytest.raises(RunError, match="damaged"):
        train(tmp_path, max_epochs=9, resume=True)
    assert run.config.read_text() == before


def test_a_folder_with_runs_in_it_can_be_trained_on_again(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "verse.txt").write_text(VERSE * 20)
    config = LanguageModelConfig(
        data=TextConfig(paths=(folder,)),
        model=ModelConfig(hidden=8),
        training=StreamTraining(max_epochs=1, batch_size=2),
    )
    quiet = Console(quiet=True)
    for name in ("one", "two"):
        LanguageModelTask.train(config, folder / "runs" / name, quiet)
    more = config.model_copy(update={"training": StreamTraining(max_epochs=2, batch_size=2)})
    assert LanguageModelTask.resume(Run.open(folder / "runs" / "one"), more, quiet).finished


def test_a_blank_text_is_named_before_training(tmp_path):
    (tmp_path / "blank.txt").write_text("   \t ")
    (tmp_path / "verse.txt").write_text(VERSE * 20)
    config = LanguageModelConfig(
        data=TextConfig(paths=(tmp_path / "verse.txt",), test=(tmp_path / "blank.txt",), tokens="word")
    )
    with pytest.raises(DataError, match=r"blank\.txt: .*nothing to predict"):
        LanguageModelTask.train(config, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_model_beyond_memory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="take a smaller one"):
        train(tmp_path, hidden=10_000_000)


def test_going_on_with_more_epochs_goes_on(tmp_path):
    first = train(tmp_path, max_epochs=1)
    second = train(tmp_path, max_epochs=3, resume=True)
    assert second.steps == 3 * first.steps
    assert LanguageModelTask.read_config(Run.open(tmp_path / "run")).training.max_epochs == 3


def test_training_is_repeatable_by_its_seed(tmp_path):
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        losses.append(train(tmp_path / name, max_epochs=2, seed=seed).valid["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_validation_and_test_text_can_be_given(tmp_path):
    paths = {}
    for name, text in {"train": VERSE * 20, "valid": VERSE, "test": VERSE[::-1]}.items():
        paths[name] = tmp_path / name
        paths[name].write_text(text)
    config = LanguageModelConfig(
        data=TextConfig(paths=(paths["train"],), valid=(paths["valid"],), test=(paths["test"],)),
        model=ModelConfig(hidden=16),
        training=StreamTraining(max_epochs=5, batch_size=2, chunk_length=20),
    )
    trained = LanguageModelTask.train(config, tmp_path / "run", Console(quiet=True))
    task = throughtime.load(tmp_path / "run")
    assert trained.valid["loss"] < trained.test["loss"]
    assert trained.test == pytest.approx(task.evaluate((paths["test"],)))
    assert trained.valid == pytest.approx(task.evaluate((paths["valid"],)), rel=1e-5)


@pytest.mark.parametrize("text", ["", "a"])
def test_too_little_text_is_said(tmp_path, text):
    with pytest.raises(DataError, match=r"empty|too short"):
        train(tmp_path, text=text)
    assert not (tmp_path / "run").exists()


def test_a_text_shorter_than_a_chunk_trains(tmp_path):
    assert train(tmp_path, text="hello world, hello", max_epochs=2).steps == 2


@pytest.mark.parametrize("name", ["config.toml", "processor.json", "model.safetensors"])
def test_a_damaged_file_of_a_run_is_named(runs, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(runs["char"], folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-40] + b"\x80{{")
    with pytest.raises(RunError, match="damaged"):
        throughtime.load(folder)
    (folder / name).unlink()
    with pytest.raises(RunError, match=name):
        throughtime.load(folder)


def test_the_configuration_of_a_run_comes_back_as_it_was(runs):
    run = Run.open(runs["word"])
    config = LanguageModelTask.read_config(run)
    assert config.data.tokens == "word" and config.data.paths[0].is_absolute()
    assert LanguageModelConfig.from_toml(run.config) == config
    assert json.loads(run.processor.read_text())["tokeniser"]["kind"] == "word"


def test_impossible_values_are_refused():
    with pytest.raises(ConfigError, match=r"hidden.*greater than or equal to 1, got 0"):
        ModelConfig(hidden=0)
    with pytest.raises(ConfigError, match="temperature"):
        next(
            throughtime.decode.sample(
                lambda t, s: (torch.zeros(1, 3), s), torch.tensor([0]), (), temperature=-1
            )
        )


def test_a_neural_cache_is_read_when_a_text_is_measured(runs, tmp_path):
    task = throughtime.load(runs["word"])
    path = tmp_path / "said again.txt"
    path.write_text("the cow sat on the dog\n" * 40)
    plain = task.evaluate((path,))
    search = task.config.search.model_copy(update={"cache": 50, "cache_share": 0.5, "cache_theta": 1.0})
    task.config = task.config.model_copy(update={"search": search})
    cached = task.evaluate((path,))
    assert cached["perplexity"] < 0.8 * plain["perplexity"]

    def by_hand(ids):
        """The log-probabilities of a document."""
        features, _ = task.model.features(ids[None, :-1], task.model.begin(1))
        log_probs, _ = task.model.log_probs_of(ids[:-1], ids[1:], task.model.begin(1))
        mixed, _ = with_cache(features[0].detach(), ids[1:], log_probs, size=50, theta=1.0, interpolation=0.5)
        return mixed

    ids = torch.tensor([0, *task.tokeniser.encode(path.read_text()).tolist()])
    assert cached["loss"] == pytest.approx(-by_hand(ids).mean().item(), rel=1e-4)
    # A document tells nothing about the next, and its end is predicted.
    first, second = by_hand(torch.cat([ids, ids[:1]])), by_hand(ids)
    both = -torch.cat([first, second]).mean().item()
    assert task.evaluate((path, path))["loss"] == pytest.approx(both, rel=1e-4)


def test_an_adaptive_softmax_keeps_its_clusters_as_words_are_added(tmp_path):
    words = [f"w{k}" for k in range(80)]
    text = "\n".join(" ".join(words[: 80 - k]) for k in range(0, 79))
    (tmp_path / "old").mkdir()
    train(tmp_path / "old", text, tokens="word", softmax="adaptive", max_epochs=1)
    before = throughtime.load(tmp_path / "old" / "run")
    more = " ".join(f"new{k}" for k in range(60))
    (tmp_path / "more.txt").write_text("\n".join([more, more, text]))
    data = before.config.data.model_copy(update={"paths": (tmp_path / "more.txt",)})
    training = StreamTraining(max_epochs=1, learning_rate=1e-12, chunk_length=16, batch_size=4)
    made = before.config.model_copy(update={"data": data, "training": training})
    LanguageModelTask.train(made, tmp_path / "new", Console(quiet=True), Run.open(tmp_path / "old" / "run"))
    after = throughtime.load(tmp_path / "new")
    assert after.tokeniser.size == before.tokeniser.size + 60
    assert after.model.head.cutoffs == before.model.head.cutoffs
    features = torch.randn(5, 32)
    known = before.model.head.cutoffs[-1]  # new words are in the last cluster
    one, two = (task.model.head.log_probs(features)[:, :known] for task in (before, after))
    torch.testing.assert_close(one, two)


def test_words_begin_as_their_pretrained_vectors(tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("cat 1 2 3 4\ndog 5 6 7 8\n")
    (tmp_path / "text.txt").write_text("the cat sat on the dog\n" * 40)
    for model, option in (
        ({"hidden": 4}, "--embedding"),
        ({"model": "transformer", "hidden": 4, "heads": 2}, "--hidden"),
    ):
        config = LanguageModelConfig(
            data=TextConfig(paths=(tmp_path / "text.txt",), tokens="word", vectors=vectors),
            model=ModelConfig(**model),
            training=StreamTraining(max_epochs=1, learning_rate=1e-9),
        )
        folder = tmp_path / option
        LanguageModelTask.train(config, folder, Console(quiet=True))
        task = throughtime.load(folder)
        cat = task.model.embedding.weight[task.tokeniser.encode("cat")].detach()
        torch.testing.assert_close(cat, torch.tensor([[1.0, 2, 3, 4]]))
        wide = config.model_copy(update={"model": ModelConfig(**model | {"hidden": 8})})
        with pytest.raises(ConfigError, match=f"add {option} 4$"):
            LanguageModelTask.train(wide, tmp_path / "wide", Console(quiet=True))
    with pytest.raises(ConfigError, match="--vectors is not read with --tokens char"):
        TextConfig(vectors=vectors)


def test_a_transformer_trains_generates_completes_and_is_measured(tmp_path):
    trained = train(tmp_path, model="transformer", layers=2, dropout=0.0, max_epochs=25, context=24)
    assert trained.valid["bits_per_character"] < 0.6
    task = throughtime.load(tmp_path / "run")
    assert task.generate("the cat sat", 10, temperature=0) == " on the ma"
    assert task.complete("the cat s")[0][0] == "sat"
    with pytest.raises(ConfigError, match="no recurrence"):
        task.embed(["the cat"], "state")
    assert task.embed(["the cat", "the dog"]).shape == (2, 32)


def test_a_text_trains_with_an_adaptive_softmax_and_averages(tmp_path):
    trained = train(tmp_path, tokens="word", softmax="adaptive", average=0.5, max_epochs=60, dropout=0.0)
    assert trained.valid["perplexity"] < 2.5
    assert throughtime.load(tmp_path / "run").generate("the cat sat", 4, temperature=0).startswith(" on the")


def tunes_config(folder, count=20, **data):
    """A training on tunes, each with a note of its own length."""
    path = folder / "tunes.abc"
    path.write_text("\n".join(f"X:{k}\nT:Tune\nK:C\nA{k}|B{k}|\n" for k in range(1, count + 1)))
    options = {"hidden": 8, "dropout": 0.0}, {"max_epochs": 2, "chunk_length": 16, "batch_size": 4}
    model, training = options
    return LanguageModelConfig(data={"paths": (path,), **data}, model=model, training=training)


def test_documents_are_held_out_whole(tmp_path):
    config = tunes_config(tmp_path, test_share=0.25, valid_share=0.2)
    parts = LanguageModelTask.read(config)
    assert [len(part) for part in parts] == [12, 3, 5]
    assert len({text for part in parts for text in part.texts}) == 20
    assert parts.valid.digest == LanguageModelTask.read(config).valid.digest
    seeded = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
    assert parts.valid.digest != LanguageModelTask.read(seeded).valid.digest
    with pytest.raises(DataError, match="1 examples are too few"):
        LanguageModelTask.read(tunes_config(tmp_path, count=1))


def test_no_document_begins_in_its_middle(tmp_path):
    config = tunes_config(tmp_path, tokens="abc")
    LanguageModelTask.train(config, tmp_path / "run", Console(quiet=True))
    task = throughtime.load(tmp_path / "run")
    assert task.documents == "tunes"
    train = LanguageModelTask.read(config).train
    begins = task.tokeniser.encode("X:")[0]
    for chunk in task.batches(train):
        after = chunk.targets[chunk.inputs == 0]
        assert (after == begins).all()
    assert "bits_per_character" in task.evaluate(config.data.paths)


def test_columns_are_those_of_the_run(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("name,hex\n" + "Red,#ff0000\nBlue,#0000ff\n" * 10)
    rows = {"paths": (path,), "columns": ("name", "hex")}
    config = tunes_config(tmp_path, **rows)
    LanguageModelTask.train(config, tmp_path / "run", Console(quiet=True))
    assert throughtime.load(tmp_path / "run").documents == "rows"
    assert LanguageModelTask.read(config).train.texts[0] in {"Red\t#ff0000\n", "Blue\t#0000ff\n"}
    other = tunes_config(tmp_path, paths=(path,), columns=("name",))
    with pytest.raises(ConfigError, match="--columns was"):
        LanguageModelTask.train(other, tmp_path / "more", Console(quiet=True), Run.open(tmp_path / "run"))
