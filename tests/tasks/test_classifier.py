"""The classifier as a person uses it: tables of every kind in, runs, answers and messages out."""

import csv
import json
import logging
import math
from collections import Counter
from random import Random

import pyarrow
import pyarrow.parquet
import pytest
import torch
from rich.console import Console

import throughtime
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.classifier import ClassifierConfig, ClassifierModelConfig, ClassifierTask
from throughtime.train.run import Run

COLOURS = ["blue", "green", "red"]
#: Sizes, of which each model is given those that it reads.
SMALL = {"hidden": 12, "embedding": 8, "heads": 2}
THINGS = ["house", "car", "tree", "dog", "boat"]


def config(*paths, data=(), model=(), **training):
    """A small model of one of the simplest kind."""
    model = {"model": "bag-of-words", "dropout": 0.0} | dict(model)
    readers = ClassifierModelConfig.read_by
    small = {name: size for name, size in SMALL.items() if model["model"] in readers[name]}
    quick = {"max_epochs": 25, "learning_rate": 0.1, "batch_tokens": 100}
    return ClassifierConfig(
        data={"paths": paths} | dict(data), model=small | model, training=quick | training
    )


def train(folder, *paths, data=(), model=(), **training):
    """A trained classifier, loaded from its run."""
    made = config(*paths, data=data, model=model, **training)
    ClassifierTask.train(made, folder / "run", Console(quiet=True))
    return throughtime.load(folder / "run")


def coloured(count, seed=0):
    """Texts that end in a colour, which is their class; sorted by class."""
    random = Random(seed)
    rows = []
    for k in range(count):
        things = [random.choice(THINGS) for _ in range(k % 4)]
        rows.append((", ".join(["one", *things]) + f' "of" {COLOURS[k % 3]}', COLOURS[k % 3].upper()))
    return sorted(rows, key=lambda row: row[1])


def write_csv(path, rows, names=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def write_tsv_without_names(path, rows):
    path.write_text("".join(f"{k}\t{label}\t{text}\n" for k, (text, label) in enumerate(rows)))


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps({"label": b, "text": a, "id": 1}) + "\n" for a, b in rows))


def write_parquet(path, rows):
    texts, labels = map(list, zip(*rows, strict=True))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)


def write_folder_per_class(path, rows):
    for k, (text, label) in enumerate(rows):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{k:04}.txt").write_text(text)


def write_file_per_class(path, rows):
    path.mkdir()
    for label in {label for _, label in rows}:
        texts = [text for text, other in rows if other == label]
        (path / f"{label}.txt").write_text("\n".join(texts) + "\n")


FORMATS = {
    "data.tsv": (write_tsv_without_names, {"input": ("3",), "target": "2"}),
    "data.jsonl": (write_jsonl, {}),
    "data.parquet": (write_parquet, {}),
    "folders": (write_folder_per_class, {}),
    "files": (write_file_per_class, {}),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A classifier of colours, from a table in csv."""
    folder = tmp_path_factory.mktemp("colours")
    return train(folder, write_csv(folder / "data.csv", coloured(60)))


# What is read.


@pytest.mark.parametrize("name", FORMATS)
def test_in_whatever_form_a_table_comes_the_model_is_the_same(task, tmp_path, name):
    write, data = FORMATS[name]
    write(tmp_path / name, coloured(60))
    other = train(tmp_path, tmp_path / name, data=data)
    texts, labels = zip(*coloured(60), strict=True)
    expected = [answer["probabilities"] for answer in task.answer(texts)]
    found = list(other.predict(other.inputs(tmp_path / name)))
    assert [answer["probabilities"] for answer in found] == [
        pytest.approx(each, abs=1e-4) for each in expected
    ]
    assert [answer["label"] for answer in found] == list(labels)
    assert other.evaluate((tmp_path / name,))["accuracy"] == 1


@pytest.mark.parametrize("packed", [False, True])
def test_the_inputs_in_a_text_are_its_lines(task, tmp_path, packed):
    import gzip

    path = tmp_path / ("lines.txt.gz" if packed else "lines.txt")
    content = b"a red, dog\n\nblue\tcar\n"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = list(task.predict(task.inputs(path)))
    assert [answer["input"] for answer in found] == ["a red, dog", "", "blue\tcar"]
    assert [found[0]["label"], found[2]["label"]] == ["RED", "BLUE"]


def test_several_tables_are_one_and_others_are_for_validation_and_test(tmp_path):
    rows = coloured(60)
    parts = [write_csv(tmp_path / f"{k}.csv", rows[k::2]) for k in range(2)]
    valid = write_csv(tmp_path / "valid.csv", rows[:9])
    test = write_csv(tmp_path / "test.csv", [("a red dog", "RED"), ("a green dog", "BLUE")])
    made = config(*parts, data={"valid": (valid,), "test": (test,)})
    corpus = ClassifierTask.read(made)
    assert sorted(corpus.train.column("text")) == sorted(text for text, _ in rows)
    assert len(corpus.valid) == 9
    trained = ClassifierTask.train(made, tmp_path / "run", Console(quiet=True))
    assert trained.valid["accuracy"] == 1 and trained.test["accuracy"] == 0.5


def test_of_each_class_the_same_share_is_kept_for_validation(tmp_path):
    path = write_csv(tmp_path / "data.csv", [("a", "rare")] * 20 + [("b", "common")] * 180)
    corpus = ClassifierTask.read(config(path))
    assert Counter(corpus.valid.column("label")) == {"rare": 2, "common": 18}


def test_several_columns_of_text_are_one_text(tmp_path):
    rows = [(text.partition(" ")[0], text.partition(" ")[2], label) for text, label in coloured(60)]
    path = write_csv(tmp_path / "data.csv", rows, ("title", "body", "label"))
    task = train(tmp_path, path, data={"input": ("title", "body")})
    assert task.evaluate((path,))["accuracy"] == 1
    given = [
        {"title": "tree", "body": "red"},
        {"title": "tree red", "body": None},
        {"title": "", "body": "red"},
    ]
    one, other, without = task.answer(given)
    assert one["label"] == "RED" and one["input"] == given[0]
    assert one["probabilities"] == other["probabilities"] != without["probabilities"]
    assert task.answer([json.dumps(given[0])])[0]["probabilities"] == pytest.approx(
        one["probabilities"], abs=1e-5
    )
    with pytest.raises(DataError, match=r"has not the columns title, body: give"):
        task.answer(["tree red"])


# What it becomes.


def beginning(count, seed):
    """Words that are all new, of the class that their first letter says."""
    random = Random(seed)
    words = [random.choice("xy") + "".join(random.choices("abcd", k=6)) for _ in range(count)]
    return [(word, word[0]) for word in words]


@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_words_that_were_never_seen_are_told_apart_by_their_parts(tmp_path, tokens):
    path = write_csv(tmp_path / "data.csv", beginning(100, 0))
    task = train(tmp_path, path, data={"tokens": tokens})
    assert task.evaluate((write_csv(tmp_path / "new.csv", beginning(100, 1)),))["accuracy"] > 0.9
    assert all(math.isfinite(p) for p in task.answer(["né 日本\x00"])[0]["probabilities"].values())


def genes(count, seed):
    """Bases in any order, and among them GATT or the same backwards."""
    random = Random(seed)
    rows = []
    for k in range(count):
        ends = ["".join(random.choices("ACGT", k=6)) for _ in range(2)]
        rows.append((ends[0] + ["GATT", "TTAG"][k % 2] + ends[1], "there" if k % 2 == 0 else "backwards"))
    return rows


def test_kmers_know_the_order_of_their_letters(tmp_path):
    path = write_csv(tmp_path / "data.csv", genes(240, 0))
    task = train(tmp_path, path, data={"tokens": "kmer", "kmer_length": 4})
    assert task.evaluate((write_csv(tmp_path / "new.csv", genes(100, 1)),))["accuracy"] > 0.8
    upper, lower, short = task.answer(["CCGATTCC", "ccgattcc", "GAT"])
    assert upper["label"] == "there" and upper["probabilities"] == lower["probabilities"]
    assert short["label"] in task.labels


def vectors(path, dimensions):
    lines = [
        f"{word} {' '.join(str(k + j / 8) for j in range(dimensions))}" for k, word in enumerate(COLOURS)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_word_begins_as_its_pretrained_vector(tmp_path, caplog):
    data = {"vectors": vectors(tmp_path / "vectors.txt", 4)}
    path = write_csv(tmp_path / "data.csv", coloured(30))
    task = train(tmp_path, path, data=data, model={"embedding": 4}, max_epochs=1, learning_rate=1e-9)
    assert torch.allclose(task.embed(["green"])[0], 1 + torch.arange(4) / 8, atol=1e-6)
    assert task.embed(["house"])[0].abs().sum() > 0
    (tmp_path / "vectors.txt").unlink()
    assert throughtime.load(tmp_path / "run").answer(["green"]) == task.answer(["green"])
    assert "have a vector" in caplog.text


@pytest.mark.parametrize(
    ("data", "model", "said"),
    [
        ({"vectors": "v.txt"}, {"model": "feed-forward"}, "--vectors is for texts, and a feed-forward model"),
        ({"max_length": 9}, {"model": "feed-forward"}, "--max-length is for texts"),
        ({"multi_label": ";"}, {"class_weights": "balanced"}, "--class-weights weigh one class"),
        ({"tokens": "char", "min_count": 3}, {}, "--min-count is not read with --tokens char"),
        ({"kmer_length": 4}, {}, "--kmer-length is not read with --tokens word"),
        ({}, {"pooling": "last"}, "--pooling is not read with --model bag-of-words"),
    ],
)
def test_an_option_that_is_not_read_is_refused(data, model, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        config("data.csv", data=data, model=model)


def test_a_run_that_begins_from_another_needs_no_second_class(tmp_path):
    before = train(tmp_path, write_csv(tmp_path / "data.csv", coloured(30)), max_epochs=3)
    made = config(write_csv(tmp_path / "new.csv", [("one pink thing", "PINK")] * 10), max_epochs=20)
    ClassifierTask.train(made, tmp_path / "new", Console(quiet=True), Run.open(tmp_path / "run"))
    after = throughtime.load(tmp_path / "new")
    assert after.labels == [*before.labels, "PINK"]
    assert after.answer(["one pink thing"])[0]["label"] == "PINK"


def test_columns_named_by_numbers_are_found_by_their_names_in_new_data_too(tmp_path):
    rows = [(k % 2, 2.0 * (k % 2), "ab"[k % 2]) for k in range(40)]
    path = write_csv(tmp_path / "data.csv", rows, ("1", "2", "kind"))
    data = {"input": ("1", "2"), "target": "kind"}
    task = train(tmp_path, path, data=data, model={"model": "feed-forward"})
    [zero, one] = task.inputs(write_csv(tmp_path / "new.csv", [(0, 0), (1, 2)], ("1", "2")))
    assert zero == {"1": "0", "2": "0"} and one == {"1": "1", "2": "2"}


def test_vectors_of_other_dimensions_name_the_option_that_is_wanted(tmp_path):
    data = {"vectors": vectors(tmp_path / "vectors.txt", 4)}
    path = write_csv(tmp_path / "data.csv", coloured(30))
    with pytest.raises(ConfigError, match=r"vectors\.txt has vectors of 4 .* reads 8: add --embedding 4$"):
        train(tmp_path, path, data=data)
    assert not (tmp_path / "run").exists()


# What reads it.


@pytest.mark.parametrize("model", ["recurrent", "transformer", "fixed-window", "big-window", "bag-of-words"])
def test_every_model_of_texts_learns_the_toy(tmp_path, model):
    path = write_csv(tmp_path / "data.csv", coloured(90))
    rate = 0.1 if model == "bag-of-words" else 0.02
    window = {"window": 3} if model == "fixed-window" else {}
    task = train(tmp_path, path, model={"model": model} | window, learning_rate=rate, max_epochs=15)
    assert task.evaluate((write_csv(tmp_path / "new.csv", coloured(60, seed=1)),))["accuracy"] > 0.95
    empty, long = task.answer(["", "house " * 300 + '"of" red'])
    assert sum(empty["probabilities"].values()) == pytest.approx(1)
    assert sum(long["probabilities"].values()) == pytest.approx(1)
    if "window" in model:
        assert long["label"] == "RED"


def signs(count, seed=0):
    """Two numbers of very different size, whose signs are equal or not, and one that is always the same."""
    random = Random(seed)
    rows = []
    for _ in range(count):
        a, b = (
            random.choice((-1, 1)) * random.uniform(0.3, 1),
            random.choice((-1, 1)) * random.uniform(0.3, 1),
        )
        rows.append((5000 + 1000 * a, 7, b / 1000, "equal" if a * b > 0 else "different"))
    return rows


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    path = write_csv(folder / "data.csv", signs(160), ("large", "constant", "small", "label"))
    data = {"input": ("small", "large", "constant")}
    return train(
        folder,
        path,
        data=data,
        model={"model": "feed-forward"},
        max_epochs=60,
        batch_tokens=50,
        learning_rate=0.05,
    )


def test_a_feed_forward_network_learns_from_numbers_of_any_size(of_numbers, tmp_path):
    names = ("constant", "label", "large", "small")
    rows = [(b, d, a, c) for a, b, c, d in signs(100, seed=1)]
    assert of_numbers.evaluate((write_csv(tmp_path / "new.csv", rows, names),))["accuracy"] > 0.9


def test_numbers_are_given_as_objects_or_as_json(of_numbers):
    row = {"large": 5900, "constant": 7, "small": -0.0009}
    forms = [row, json.dumps(row), {name: str(value) for name, value in row.items()} | {"more": "x"}]
    answers = of_numbers.answer(forms)
    assert [answer["input"] for answer in answers] == forms
    assert answers[0]["label"] == "different"
    assert answers[1]["probabilities"] == answers[0]["probabilities"] == answers[2]["probabilities"]
    with pytest.raises(DataError, match=r'input \'\[1, 2, 3\]\' has .* give \{"small": 0\.5, "large": 0\.5'):
        of_numbers.answer([row, "[1, 2, 3]"])
    with pytest.raises(DataError, match=r"^input {.*}: large is 'many', which is no finite number"):
        of_numbers.answer([row, row | {"large": "many"}])


@pytest.mark.parametrize("value", ["", "n/a", "nan", "inf", "1,5"])
def test_a_number_that_is_none_is_named_with_its_row(tmp_path, value):
    rows = [("1", "a"), ("2", "b"), (value, "a"), ("3", "b")]
    path = write_csv(tmp_path / "data.csv", rows, ("width", "label"))
    with pytest.raises(DataError, match=r"data\.csv, line 4: width is .*, which is no finite number"):
        train(tmp_path, path, data={"input": ("width",), "valid": (path,)}, model={"model": "feed-forward"})


def test_balanced_weights_make_a_rare_class_count_the_same(tmp_path):
    path = write_csv(tmp_path / "data.csv", [("it", "common")] * 45 + [("it", "rare")] * 5)
    found = {}
    for weights in ("none", "balanced"):
        (tmp_path / weights).mkdir()
        options = {"model": {"class_weights": weights}, "max_epochs": 60, "learning_rate": 0.1}
        task = train(tmp_path / weights, path, data={"valid": (path,)}, schedule="constant", **options)
        found[weights] = task.answer(["it"])[0]["probabilities"]["rare"]
    assert found == {"none": pytest.approx(0.1, abs=0.05), "balanced": pytest.approx(0.5, abs=0.05)}


# Several labels, or none.


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A classifier of all colours in a text."""
    folder, random = tmp_path_factory.mktemp("several"), Random(0)
    rows = []
    for _ in range(200):
        colours = random.sample(COLOURS, random.randint(0, 3))
        words = colours + random.choices(THINGS, k=2)
        rows.append((" ".join(random.sample(words, len(words))), " / ".join(colours)))
    return train(folder, write_csv(folder / "data.csv", rows), data={"multi_label": "/"})


def test_a_text_may_have_several_labels_or_none(several):
    answers = several.answer(["green house blue", "tree car", "red tree", ""])
    assert [answer["labels"] for answer in answers[:3]] == [["blue", "green"], [], ["red"]]
    for answer in answers:
        assert answer["labels"] == [name for name, p in answer["probabilities"].items() if p >= 0.5]
    assert several.show(answers[1]) == "-"
    assert several.show(answers[0]).split()[::2] == ["blue", "green"]


def test_the_metrics_of_several_labels_are_counted_by_hand(several, tmp_path):
    rows = [("red car", "red/blue"), ("blue house", ""), ("tree dog", ""), ("green red dog", "red/green")]
    metrics = several.evaluate((write_csv(tmp_path / "new.csv", rows),))
    # Red and green are right, blue is missed once and found once in error.
    assert metrics["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert metrics["macro_f1"] == pytest.approx(2 / 3)
    assert metrics["exact_match"] == 0.5


def test_several_labels_have_no_confusion(several, tmp_path):
    path = write_csv(tmp_path / "new.csv", [("red", "red")])
    assert several.report((path,)).draw(tmp_path) == []


def test_a_label_that_occurs_once_is_trained_on_among_several_too(tmp_path, caplog):
    rows = [("a", "x;y")] * 30 + [("b", f"x;{k}") for k in range(10)]
    path = write_csv(tmp_path / "data.csv", rows)
    for seed in range(8):
        corpus = ClassifierTask.read(config(path, data={"multi_label": ";"}, seed=seed))
        assert set(corpus.valid.column("label")) == {"x;y"} and len(corpus.valid) in (3, 4)
        assert sorted(corpus.train.column("label") + corpus.valid.column("label")) == sorted(
            b for _, b in rows
        )
    assert "classes with a single example to train on: 0, 1, 2, 3" in caplog.text
    alone = write_csv(tmp_path / "alone.csv", [("b", str(k)) for k in range(20)])
    with pytest.raises(DataError, match=r"20 examples are too few to keep 10% of them .* --valid"):
        ClassifierTask.read(config(alone, data={"multi_label": ";"}))


def test_no_labels_at_all_are_refused(tmp_path):
    path = write_csv(tmp_path / "data.csv", [("a b", "")] * 20)
    with pytest.raises(DataError, match=r"data\.csv: no row has a label: give rows with labels in label"):
        train(tmp_path, path, data={"multi_label": ";"})


# What is wrong with the data, and what is only odd.


def test_a_column_that_is_missing_is_named_with_those_that_there_are(task, tmp_path):
    path = write_csv(tmp_path / "data.csv", [("a", "b", "c")] * 20, ("review", "stars", "lang"))
    with pytest.raises(
        DataError, match=r'data\.csv has no column "text": there are "review", "stars", "lang"'
    ):
        train(tmp_path, path)
    with pytest.raises(DataError, match='has no column "label": there are "review", "stars", "lang"'):
        train(tmp_path, path, data={"input": ("review",)})
    with pytest.raises(DataError, match='has no column "text"'):
        task.evaluate((path,))


def test_an_empty_label_is_named_with_its_line(task, tmp_path):
    rows = coloured(20)
    path = write_csv(tmp_path / "data.csv", [*rows[:5], ("red", " "), *rows[5:]])
    for read in (lambda: train(tmp_path, path), lambda: task.evaluate((path,))):
        with pytest.raises(DataError, match=r"data\.csv, line 7: label is empty"):
            read()
    assert not (tmp_path / "run").exists()


def test_a_single_class_is_refused(tmp_path):
    path = write_csv(tmp_path / "data.csv", [("a b", "spam")] * 20)
    with pytest.raises(DataError, match=r'data\.csv: every label is "spam": a classifier needs two'):
        train(tmp_path, path)


def test_a_class_with_a_single_example_is_trained_on_and_said(tmp_path, caplog):
    path = write_csv(tmp_path / "data.csv", [*coloured(30), ("mauve mauve mauve mauve", "MAUVE")])
    for seed in range(8):
        assert "MAUVE" in ClassifierTask.read(config(path, seed=seed)).train.column("label")
    task = train(tmp_path, path)
    assert task.answer(["mauve mauve"])[0]["label"] == "MAUVE"
    assert "classes with a single example to train on: MAUVE" in caplog.text


def test_the_metrics_are_counted_by_hand_and_a_class_never_seen_counts_as_wrong(task, tmp_path, caplog):
    known = [("red dog", "RED"), ("a blue car", "BLUE"), ("green", "GREEN"), ("green tree", "RED")]
    before = task.evaluate((write_csv(tmp_path / "known.csv", known),))
    assert before["accuracy"] == 0.75
    # Green: one of two found is right; red: one of two is found.
    assert before["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    confidences = [max(each["probabilities"].values()) for each in task.answer([text for text, _ in known])]
    assert min(confidences) > 14 / 15  # all in the last interval
    assert before["calibration_error"] == pytest.approx(abs(sum(confidences) / 4 - 0.75), abs=1e-6)
    assert not caplog.records
    path = write_csv(tmp_path / "new.csv", [*known, ("red boat", "MAUVE")])
    after = task.evaluate((path,))
    assert after["accuracy"] == 0.6
    assert after["loss"] == pytest.approx(before["loss"])
    assert f'{path}, line 6: label is "MAUVE"' in caplog.text
    assert "never saw: it saw BLUE, GREEN, RED; 1 of 5 rows like it" in caplog.text


def test_labels_of_which_none_is_known_are_refused(task, tmp_path):
    path = write_csv(tmp_path / "new.csv", [("red", "1"), ("blue", "2")])
    with pytest.raises(DataError, match=r'new\.csv, line 2: label is "1", .* it saw BLUE, GREEN, RED'):
        task.evaluate((path,))


def test_what_is_wrong_with_validation_data_is_found_before_there_is_a_run(tmp_path):
    path = write_csv(tmp_path / "data.csv", coloured(20))
    valid = write_csv(tmp_path / "valid.csv", [("red", "1")])
    with pytest.raises(DataError, match=r"valid\.csv, line 2"):
        train(tmp_path, path, data={"valid": (valid,)})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl", "pos.txt"])
def test_other_encodings_are_refused_with_the_byte(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes("text,label\ncafé,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{name} is not UTF-8: byte 14 \(0xe9\)"):
        train(tmp_path, folder if name == "pos.txt" else folder / name)


def test_empty_texts_and_long_ones_are_read_as_far_as_that_goes_and_said(tmp_path, caplog):
    rows = [*coloured(30), ("", "RED"), ("red " * 100_000, "RED"), (" ", "BLUE")]
    path = write_csv(tmp_path / "data.csv", rows)
    with caplog.at_level(logging.WARNING):
        task = train(tmp_path, path, data={"valid": (write_csv(tmp_path / "valid.csv", rows[:4]),)})
    told = [record.getMessage() for record in caplog.records]
    assert f"2 of 33 texts have nothing in them that is read; the first is {path}, line 32" in told
    many = "1 of 33 texts have more than 2000 tokens, of which the first 2000 are read"
    assert f"{many}; the first is {path}, line 33" in told
    texts = ["red " * 2000 + "blue " * 98_000, "red " * 2000, "red " * 1999 + "blue", ""]
    long, whole, other, empty = (answer["probabilities"] for answer in task.answer(texts))
    assert long == whole and whole != other
    assert sum(empty.values()) == pytest.approx(1)
    assert task.evaluate((path,))["accuracy"] > 0.9


# What is chosen, drawn and shown.


def test_the_most_accurate_weights_are_kept_and_of_these_those_of_the_lowest_loss(tmp_path):
    valid = write_csv(tmp_path / "valid.csv", [("one tree red", "RED"), ("one car blue", "BLUE")])
    task = train(tmp_path, write_csv(tmp_path / "data.csv", coloured(60)), data={"valid": (valid,)})
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    found = [record["valid"] for record in records if "valid" in record]
    best = max(found, key=lambda metrics: (metrics["accuracy"], -metrics["loss"]))
    equal = [metrics["loss"] for metrics in found if metrics["accuracy"] == best["accuracy"]]
    assert len(equal) > 1 and equal[0] > 2 * best["loss"]
    assert task.evaluate((valid,)) == pytest.approx(best)


def test_of_several_labels_the_best_weights_are_those_of_the_best_f1(several):
    assert several.quality({"micro_f1": 0.7, "macro_f1": 0.5, "exact_match": 0.6, "loss": 3.0}) == 0.7


def test_the_confusion_is_drawn_when_training_ends_and_for_other_data(task, tmp_path):
    path = write_csv(tmp_path / "data.csv", coloured(30))
    train(tmp_path, path, max_epochs=1)
    assert (tmp_path / "run" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    rows = [("red", "RED"), ("blue", "BLUE"), ("dog red", "RED"), ("green", "RED"), ("car blue", "MAUVE")]
    path = write_csv(tmp_path / "new.csv", rows)
    [drawn] = task.report((path,)).draw(tmp_path / "figures")
    assert drawn == tmp_path / "figures" / "confusion.png" and drawn.read_bytes().startswith(b"\x89PNG")
    matrix = task.report((path,)).figures["confusion"]().get_axes()[0]
    names = [label.get_text() for label in matrix.get_yticklabels()]
    cells = {
        (names[int(y)], names[int(x)]): t.get_text() for t in matrix.texts for x, y in [t.get_position()]
    }
    assert cells == {
        ("RED", "RED"): "2",
        ("BLUE", "BLUE"): "1",
        ("RED", "GREEN"): "1",
        ("MAUVE", "BLUE"): "1",
    }


def test_an_answer_is_shown_with_how_sure_it_is(task):
    [answer] = task.answer(["a red house"])
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get) == "RED"
    assert task.show(answer) == f"RED {answer['probabilities']['RED']:.3f}"


def test_a_person_is_told_the_classes_and_sees_examples_with_their_classes(task, tmp_path):
    assert task.remarks()[0].startswith("3 classes: BLUE, GREEN, RED; ")
    part = task.encode(task.open((write_csv(tmp_path / "new.csv", [("a red dog", "BLUE")]),)))
    first, second = task.sample(part).splitlines()
    assert first == "a red dog" and second.startswith("  RED ") and second.endswith("(right: BLUE)")
