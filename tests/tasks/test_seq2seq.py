"""Sequence to sequence: what is read, which models there are, how outputs are looked for."""

import copy
import itertools
import json
import math
import random
from types import SimpleNamespace

import pytest
import torch
from toys import pairs as write_pairs
from toys import toy_run

import throughtime
from throughtime.data.columns import Places
from throughtime.data.pairs import Pairs, read_pairs
from throughtime.decode.sequences import length_normalised
from throughtime.errors import ConfigError, DataError
from throughtime.models.transformer import TransformerSeq2Seq
from throughtime.tasks.seq2seq import (
    EncoderDecoderConfig,
    PairsConfig,
    SearchConfig,
    Seq2SeqConfig,
    Seq2SeqTask,
)
from throughtime.train.translation import translation_metrics

INPUTS = ["12", "0123", "3", "0011", "2213", "30"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that turns digits round."""
    return throughtime.load(toy_run("seq2seq", tmp_path_factory.mktemp("seq2seq"), max_epochs=12))


@pytest.fixture
def search(trained):
    """The trained task with another search."""

    def other(**options):
        task = copy.copy(trained)
        task.config = trained.config.model_copy(update={"search": SearchConfig(**options)})
        return task

    return other


@pytest.fixture
def table(tmp_path):
    write_pairs(tmp_path / "pairs.tsv", random.Random(1))
    return tmp_path / "pairs.tsv"


def untrained(table, tokens="char", **model):
    """A task as training makes it, and its data."""
    config = Seq2SeqConfig(
        data=PairsConfig(paths=(table,), input="1", target="2", tokens=tokens),
        model=EncoderDecoderConfig(**{"hidden": 8, "dropout": 0.0} | model),
    )
    corpus = Seq2SeqTask.read(config)
    processor = json.loads(json.dumps(Seq2SeqTask.learn(config, corpus.train)))
    return Seq2SeqTask(config, processor), corpus.train


# Data.


def test_parallel_files_and_tables_are_read_alike(tmp_path):
    sources, targets = [f"a {k}" for k in range(20)], [f"{k} , b" for k in range(20)]
    (tmp_path / "train.en").write_text("\n".join(sources) + "\n")
    (tmp_path / "train.de").write_text("\n".join(targets) + "\n")
    lines = [f"{t}\tx\t{s}" for s, t in zip(sources, targets, strict=True)]
    (tmp_path / "named.tsv").write_text("\n".join(["to\tother\tfrom", *lines]))
    (tmp_path / "numbered.tsv").write_text("\n".join(lines))
    rows = [json.dumps({"from": s, "to": t}) for s, t in zip(sources, targets, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    found = []
    for names, columns in (
        (["train.en", "train.de"], {}),
        (["named.tsv"], {"input": "from", "target": "to"}),
        (["numbered.tsv"], {"input": "3", "target": "1"}),
        (["rows.jsonl"], {"input": "from", "target": "to"}),
    ):
        paths = tuple(tmp_path / name for name in names)
        data = PairsConfig(paths=paths, valid_share=0.2, test=paths, **columns)
        found.append(Seq2SeqTask.read(Seq2SeqConfig(data=data)))
    train, valid, test = found[0]
    assert (len(train), len(valid)) == (16, 4)
    assert sorted(train.sources + valid.sources) == sorted(sources) and test.targets == targets
    for other in found[1:]:
        assert [part.digest for part in other] == [part.digest for part in found[0]]


def test_parallel_files_of_different_length_are_refused(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    data = PairsConfig(paths=(tmp_path / "a", tmp_path / "b"))
    with pytest.raises(DataError, match=r"a has 3 lines and .*b has 2"):
        Seq2SeqTask.read(Seq2SeqConfig(data=data))


def words(folder):
    """An untrained task of words."""
    (folder / "s").write_text("a b c\n" * 20)
    (folder / "t").write_text("c b a\n" * 20)
    data = PairsConfig(paths=(folder / "s", folder / "t"), tokens="word")
    config = Seq2SeqConfig(data=data, model=EncoderDecoderConfig(hidden=8))
    return Seq2SeqTask(config, Seq2SeqTask.learn(config, Seq2SeqTask.read(config).train))


def test_an_empty_line_is_left_out_with_its_pair(tmp_path, caplog):
    (tmp_path / "a").write_text("1\n\n3\n4\n")
    (tmp_path / "b").write_text("one\ntwo\nthree\n \n")
    task = words(tmp_path)
    assert task.open((tmp_path / "a", tmp_path / "b")).targets == ["one", "three"]
    assert "2 of 4 pairs have an empty side" in caplog.text and "line 2" in caplog.text


@pytest.mark.parametrize("most", [3, 2])
def test_long_pairs_are_left_out_of_training_and_counted(table, caplog, most):
    task, train = untrained(table)
    data = task.config.data.model_copy(update={"max_length": most})
    task.config = task.config.model_copy(update={"data": data})
    short = [k for k in range(len(train)) if len(train.sources[k]) <= most]
    first = next(k for k in range(len(train)) if k not in short)
    batches = task.batches(train)
    read = [batches.batch(number, 0) for number in range(len(batches))]
    assert sum(len(batch.source) for batch in read) == len(short)
    assert max(int(batch.source_lengths.max()) for batch in read) == most + 1  # the boundary is one
    assert f"{len(train) - len(short)} of {len(train)} pairs have a side of more than {most}" in caplog.text
    assert caplog.text.strip().endswith(f"the first is {train.places[first]}")
    assert len(task.encode(train).sources) == len(train)  # it is measured on all


def test_nothing_but_long_pairs_is_refused(table):
    task, train = untrained(table)
    data = task.config.data.model_copy(update={"max_length": 1})
    task.config = task.config.model_copy(update={"data": data})
    rows = [k for k in range(len(train)) if len(train.sources[k]) > 1]
    with pytest.raises(DataError, match="--max-length"):
        task.batches(train.select(rows))


def test_inputs_are_the_column_of_a_table_or_lines(trained, tmp_path):
    (tmp_path / "in.tsv").write_text("12\t21\n3\t3\n")
    (tmp_path / "in.txt").write_text("12\n\n3\n")
    assert list(trained.inputs(tmp_path / "in.tsv")) == ["12", "3"]
    assert list(trained.inputs(tmp_path / "in.txt")) == ["12", "", "3"]
    task = words(tmp_path)
    assert list(task.inputs(tmp_path / "in.tsv")) == ["12\t21", "3\t3"]


# Models.

MODELS = {
    "general": ({}, lambda m: m.attention.kind == "general" and m.encoder.bidirectional),
    "dot": ({"attention": "dot"}, lambda m: m.attention.kind == "dot"),
    "additive": ({"attention": "additive"}, lambda m: m.attention.kind == "additive"),
    "none": ({"attention": "none"}, lambda m: m.attention is None),
    "feeding": ({"input_feeding": True}, lambda m: m.input_feeding),
    "coverage": ({"attention": "additive", "coverage": True}, lambda m: m.coverage),
    "scheduled": ({"scheduled_sampling": 0.5}, lambda m: m.scheduled_sampling == 0.5),
    "forward": ({"bidirectional": False, "layers": 2}, lambda m: not m.encoder.bidirectional),
    "gru": ({"cell": "gru"}, lambda m: "gru" in m.decoder.extra_repr()),
    "embedding": ({"embedding": 6}, lambda m: m.head.weight.shape[1] == 8),
    "untied": ({"tied": False}, lambda m: m.head.weight is not m.target_embedding.weight),
    "transformer": ({"model": "transformer", "heads": 2}, lambda m: isinstance(m, TransformerSeq2Seq)),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_made_from_the_configuration_trains_and_answers(table, name):
    options, right = MODELS[name]
    task, train = untrained(table, **options)
    assert right(task.model)
    task.model.train()
    loss = task.model.loss(task.batches(train).batch(0, 0))
    (loss.total / loss.count + loss.penalty).backward()
    assert all(p.grad is not None and p.grad.to_dense().any() for p in task.model.parameters())
    task.model.eval()
    task.config = task.config.model_copy(update={"search": SearchConfig(beams=2, attention=name != "none")})
    for text, answer in zip(["012", ""], task.answer(["012", ""]), strict=True):
        assert answer["input"] == text and answer["log_prob"] < 0
        if name != "none":
            check_attention(text, answer)


def check_attention(text, answer):
    """A row for each output token and the end, a column for each input token and the end."""
    attention = answer["attention"]
    assert attention["input_tokens"] == [*text, "<end>"]
    assert attention["output_tokens"] == [*answer["output"], "<end>"]
    weights = torch.tensor(attention["weights"])
    assert weights.shape == (len(answer["output"]) + 1, len(text) + 1)
    assert (weights >= 0).all() and torch.allclose(weights.sum(1), torch.ones(len(weights)))


def test_the_bottleneck_has_no_attention_to_show(table):
    task, _ = untrained(table, attention="none")
    with pytest.raises(ConfigError, match='attention "none"'):
        task.draw({"input": "1", "output": "1"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage": True}, "coverage"),
        ({"attention": "none", "input_feeding": True}, "input_feeding needs attention"),
        ({"hidden": 7}, "take an even number"),
        ({"model": "transformer", "heads": 3}, "heads"),
    ],
)
def test_options_that_do_not_fit_are_refused(table, options, message):
    with pytest.raises(ConfigError, match=message):
        untrained(table, **options)


@pytest.mark.parametrize("tokens", ["char", "word", "bpe"])
def test_every_kind_of_token_answers_in_text(table, tokens):
    task, train = untrained(table, tokens)
    task.model.eval()
    assert task.tokeniser.kind == tokens
    answers = task.answer([train.sources[0], "", "日本 $x$ \x00"])
    known = {"char": set("0123"), "word": {*train.sources, *train.targets}}
    for answer in answers:
        pieces = answer["output"].split() if tokens == "word" else answer["output"]
        assert tokens == "bpe" or known[tokens].issuperset(pieces)
        assert json.loads(json.dumps(answer)) == answer


# Search.


def log_prob(task, source, target):
    """By teacher forcing."""
    part = task.encode(Pairs([source], [target], Places.counted("line ", [1])))
    return -task.measure(part).metrics["loss"] * (len(target) + 1)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 6.0])
def test_the_best_outputs_are_in_the_order_of_their_scores(search, penalty):
    task = search(n_best=4, beams=6, length_penalty=penalty)
    for answer in task.answer(INPUTS):
        best = answer["n_best"]
        assert len({each["output"] for each in best}) == 4
        assert best[0] == {"output": answer["output"], "log_prob": answer["log_prob"]}
        scores = [length_normalised(e["log_prob"], len(e["output"]) + 1, penalty) for e in best]
        assert scores == sorted(scores, reverse=True)
        shown = task.show(answer).splitlines()
        assert [line.split(maxsplit=1)[1:] for line in shown] == [e["output"].split() for e in best]


def test_log_probabilities_are_those_of_teacher_forcing(search):
    task = search(n_best=3)
    [answer] = task.answer(["0123"])
    for each in answer["n_best"]:
        assert each["log_prob"] == pytest.approx(log_prob(search(beams=1), "0123", each["output"]), rel=1e-4)


def test_more_outputs_than_beams_widen_the_beam(search):
    [answer] = search(beams=1, n_best=3).answer(["0123"])
    assert len(answer["n_best"]) == 3


def test_more_beams_find_what_is_as_likely(search):
    narrow, wide = (search(beams=n, length_penalty=0.0).answer(INPUTS) for n in (1, 40))
    assert all(b["log_prob"] >= a["log_prob"] - 1e-6 for a, b in zip(narrow, wide, strict=True))


def test_no_token_comes_twice_where_that_is_asked(search):
    def repeats(answers):
        return [len(set(a["output"])) < len(a["output"]) for a in answers]

    texts = ["0011", "2222", "3131"]
    assert any(repeats(search().answer(texts)))
    assert not any(repeats(search(no_repeat_ngram=1).answer(texts)))


def test_groups_are_kept_apart_by_diversity(search):
    def beginnings(**options):
        [answer] = search(beams=4, n_best=4, **options).answer(["0123"])
        return [each["output"][:1] for each in answer["n_best"]]

    assert len(set(beginnings())) < 4
    assert len(set(beginnings(groups=4, diversity=1e4))) == 4


def outputs(answers):
    return [[each["output"] for each in answer.get("n_best", [answer])] for answer in answers]


def test_what_is_drawn_is_repeatable_and_does_not_depend_on_the_batch(search):
    def drawn(seed, texts):
        return outputs(search(temperature=3.0, n_best=3, seed=seed).answer(texts))

    first = drawn(5, INPUTS)
    assert first == drawn(5, INPUTS) != drawn(6, INPUTS)
    assert drawn(5, INPUTS[::-1]) == first[::-1]
    assert [drawn(5, [text])[0] for text in INPUTS] == first
    assert any(len(set(three)) > 1 for three in first)
    assert drawn(2**63 - 1, INPUTS[:1])


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"temperature": 5.0, "top_k": 1}, {"temperature": 5.0, "top_p": 1e-9}]
)
def test_drawing_without_chance_is_greedy_search(search, options):
    assert outputs(search(**options).answer(INPUTS)) == outputs(search(beams=1).answer(INPUTS))


def test_the_likeliest_is_drawn_as_often_as_it_is_likely(search):
    task = search(temperature=1.0, n_best=400)
    [answer] = task.answer(["30"])
    drawn = [each["output"] for each in answer["n_best"]]
    p = math.exp(log_prob(search(beams=1), "30", drawn[0]))
    assert drawn.count(drawn[0]) / 400 == pytest.approx(p, abs=5 * math.sqrt(0.25 / 400))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 2}, "groups must divide the 5 beams"),
        ({"diversity": 1.0}, "diversity is between groups"),
    ],
)
def test_a_search_that_cannot_be_is_refused(search, options, message):
    with pytest.raises(ConfigError, match=message):
        search(**options).answer(["1"])
    with pytest.raises(ConfigError, match="beams"):
        SearchConfig(beams=0)


# Use.


def test_the_unknown_is_read_and_never_written(search):
    for options in ({}, {"temperature": 5.0, "n_best": 5}):
        for answer in search(**options).answer(["zéz", "日本語", "\x00", "1\ufffd2"]):
            written = itertools.chain.from_iterable(outputs([answer]))
            assert set("".join(written)) <= set("0123")


def test_a_very_long_input_is_answered_beside_a_short_one(search):
    task, text = search(beams=1), "0123" * 120
    long, short = task.answer([text, "12"])
    assert long["input"] == text and len(long["output"]) <= 2 * (len(text) + 1) + 10
    assert short == pytest.approx(task.answer(["12"])[0])


def test_of_an_endless_input_the_first_tokens_are_read_and_that_is_said(search, caplog):
    task, text = search(beams=1), "0123" * 25_000
    [answer] = task.answer([text])
    assert len(answer["output"]) <= 2 * task.config.data.max_length + 10
    assert "1 of 1 texts have more than 5000 tokens, of which the first 5000 are read" in caplog.text
    assert answer["output"] == task.answer([text[:5000]])[0]["output"]


def test_white_space_around_an_input_is_no_part_of_it(search):
    one, two = search().answer([" 12\t", "12"])
    assert (one["output"], one["log_prob"]) == (two["output"], two["log_prob"])


def test_an_output_as_long_as_the_longest_of_the_training_can_end(trained):
    """The end is a token too."""
    longest = "0" * trained.longest
    config = trained.config.model_copy(update={"search": SearchConfig(beams=1)})
    task = copy.copy(trained)
    task.config = config

    def step(tokens, state):
        """Writes zeros, and ends after as many as the longest target has."""
        log_probs = torch.full((len(tokens), task.tokeniser.size), -50.0)
        after = state + 1
        ends = after > len(longest)
        log_probs[ends, 0] = 0.0
        log_probs[~ends, task.tokeniser.encode("0")[0]] = 0.0
        return log_probs, after

    task.model = SimpleNamespace(
        begin=lambda source, lengths: torch.zeros(len(source)),
        select=lambda state, rows: state[rows],
        step=step,
        parameters=lambda: iter([torch.zeros(1)]),
    )
    task.__class__ = type("OnProcessor", (type(trained),), {"_device": torch.device("cpu")})
    [[best]] = task._search([task.tokeniser.encode("1")], task.config.search)
    assert best.finished and task.tokeniser.decode(best.tokens) == longest


@pytest.mark.parametrize("option", ["top_k", "top_p"])
def test_what_is_for_drawing_is_refused_in_a_search(option):
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')} is for outputs that are drawn"):
        SearchConfig(**{option: 1})


def test_attention_comes_where_it_is_asked_for(search):
    inputs = [*INPUTS, "", "z"]
    for text, answer in zip(inputs, search(attention=True).answer(inputs), strict=True):
        check_attention(text.replace("z", "\ufffd"), answer)
    assert "attention" not in search().answer(["1"])[0]


def test_the_figure_shows_the_tokens(search):
    task = search()
    [answer] = task.answer(["0123"])
    axes = task.draw(answer).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == [*"0123", "<end>"]
    assert [t.get_text() for t in axes.get_yticklabels()] == [*answer["output"], "<end>"]
    weights = torch.tensor(search(attention=True).answer(["0123"])[0]["attention"]["weights"])
    assert torch.allclose(torch.tensor(axes.images[0].get_array().tolist()), weights)


def test_evaluation_is_of_what_the_search_finds(search, table):
    found = read_pairs([table], "1", "2").select(range(40))
    measured = []
    for options in ({"beams": 1}, {"beams": 1, "no_repeat_ngram": 1}):
        task = search(**options)
        made = [answer["output"] for answer in task.answer(found.sources)]
        metrics = task.measure(task.encode(found)).metrics
        loss = -sum(log_prob(task, *pair) for pair in zip(found.sources, found.targets, strict=True))
        assert metrics["loss"] == pytest.approx(loss / sum(len(t) + 1 for t in found.targets), rel=1e-4)
        assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
        assert {k: metrics[k] for k in ("bleu", "chrf", "accuracy")} == translation_metrics(
            made, found.targets
        )
        assert task.quality(metrics) == metrics["chrf"]
        measured.append(metrics)
    assert measured[0]["accuracy"] > measured[1]["accuracy"]  # some have a digit twice
    assert task.validate(task.encode(found)) == pytest.approx(measured[0])  # always greedy


def test_a_sample_shows_source_output_and_what_is_right(search, table):
    task = search()
    found = read_pairs([table], "1", "2")
    made = [answer["output"] for answer in search(beams=1).answer(found.sources[:3])]
    shown = task.sample(task.encode(found)).splitlines()
    assert shown[0::3] == found.sources[:3]
    assert [line.strip() for line in shown[1::3]] == made
    assert [line.strip() for line in shown[2::3]] == [f"(right: {t})" for t in found.targets[:3]]
