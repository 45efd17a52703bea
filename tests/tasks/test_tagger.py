"""The tagger as a person uses it: columns of every kind in, runs, answers and columns out."""

import gzip
import math
from dataclasses import replace
from random import Random

import pytest
import torch
from rich.console import Console

import throughtime
from throughtime.data.spans import legal_transitions
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.tagger import ReadingConfig, TaggerConfig, TaggerTask
from throughtime.train.run import Run

#: Each word with its part of speech, that of the Penn treebank, and what it is of a name.
WORDS = {
    "ann": ("PROPN", "NNP", "B-PER"),
    "bob": ("PROPN", "NNP", "B-PER"),
    "smith": ("PROPN", "NNP", "I-PER"),
    "paris": ("PROPN", "NNP", "B-LOC"),
    "new": ("ADJ", "JJ", "B-LOC"),
    "york": ("PROPN", "NNP", "I-LOC"),
    "sees": ("VERB", "VBZ", "O"),
    "likes": ("VERB", "VBZ", "O"),
    "today": ("NOUN", "NN", "O"),
}


def sentences(count, seed=0):
    random = Random(seed)
    made = []
    for _ in range(count):
        words = [random.choice(["ann", "bob"]), *random.choice([[], ["smith"]])]
        words += [random.choice(["sees", "likes"]), *random.choice([["paris"], ["new", "york"]])]
        made.append(words + random.choice([[], ["today"]]))
    return made


def tags_of(words):
    return [WORDS[word][2] for word in words]


def bioes(tags):
    """Tags of the BIO scheme in the other one."""
    after = [*tags[1:], "O"]
    marks = {("B", True): "B", ("B", False): "S", ("I", True): "I", ("I", False): "E"}
    return [
        tag if tag == "O" else marks[tag[0], following.startswith("I")] + tag[1:]
        for tag, following in zip(tags, after, strict=True)
    ]


def write(path, rows, write_tags=tags_of):
    """A word, its part of speech and its tag in each line."""
    path.write_text(
        "\n".join(
            "".join(f"{w} {WORDS[w][0]} {t}\n" for w, t in zip(s, write_tags(s), strict=True)) for s in rows
        )
    )
    return path


def write_pairs(path, *rows):
    """Sentences of words and tags as given: "ann/B-PER sees/O"."""
    path.write_text("\n\n".join(row.replace(" ", "\n").replace("/", " ") for row in rows) + "\n")
    return path


def config(*paths, data=(), model=(), **training):
    small = {"hidden": 12, "embedding": 8, "character_encoder": "none", "dropout": 0.0, "word_dropout": 0.0}
    quick = {"max_epochs": 8, "learning_rate": 0.05, "batch_tokens": 40}
    return TaggerConfig(
        data={"paths": paths} | dict(data), model=small | dict(model), training=quick | training
    )


def train(folder, *paths, data=(), model=(), **training):
    """A trained tagger, loaded from its run."""
    made = config(*paths, data=data, model=model, **training)
    TaggerTask.train(made, folder / "run", Console(quiet=True))
    return throughtime.load(folder / "run")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A tagger of names that knows all words, by a conditional random field."""
    folder = tmp_path_factory.mktemp("names")
    return train(folder, write(folder / "names.conll", sentences(40)))


def predicted(task, path):
    """What `throughtime predict RUN --file PATH` writes."""
    return "".join(task.show(answer) + "\n" for answer in task.predict(task.inputs(path)))


def legal(tags):
    return all(
        t[0] != "I" or (b[1:] == t[1:] and b[0] in "BI") for b, t in zip(["O", *tags], tags, strict=False)
    )


# Files in, files out.


def test_names_are_learnt_and_new_sentences_tagged(task, tmp_path):
    metrics = task.evaluate((write(tmp_path / "new.conll", sentences(20, seed=1)),))
    assert metrics["f1"] == metrics["precision"] == metrics["recall"] == metrics["accuracy"] == 1
    assert task.tags == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def test_what_is_predicted_stands_in_the_columns_that_came_in(task, tmp_path):
    path = tmp_path / "new.conll"
    path.write_text("-DOCSTART- -X- O\n\nann  PROPN  ?\nsees\tVERB\tI-LOC\n\n\nBob X X\nsmith  Y  Z")
    expected = "-DOCSTART- -X- O\n\nann  PROPN  B-PER\nsees\tVERB\tO\n\nBob X B-PER\nsmith  Y  I-PER\n\n"
    assert predicted(task, path) == expected
    path.write_text(expected)
    assert predicted(task, path) == expected


def test_a_file_without_the_column_of_tags_gets_one(task, tmp_path):
    path = tmp_path / "new.conll"
    path.write_text("ann PROPN\nsees\tVERB\n\nbob X \n")
    assert predicted(task, path) == "ann PROPN B-PER\nsees\tVERB\tO\n\nbob X B-PER\n\n"
    for text, columns in (("ann\nsees\n", 1), ("ann a b c\n", 4)):
        path.write_text(text)
        wanted = rf"new\.conll has {columns} columns, and 3 are wanted: give as many, or all but the tags"
        with pytest.raises(DataError, match=wanted):
            task.inputs(path)


def test_a_tag_that_is_of_no_span_among_tags_that_are_is_said(tmp_path, caplog):
    rows = ["ann/B-PER sees/O", "bob/B-PER smith/I-PER sees/o", "ann/B-PER likes/O"] * 4
    tagger = train(tmp_path, write_pairs(tmp_path / "data.conll", *rows), max_epochs=1)
    assert tagger.scheme is None
    assert 'data.conll, line 4 has "o", which is no tag of a span' in caplog.text


def test_new_tags_of_a_run_that_begins_from_another_follow_their_scheme(tmp_path):
    short = write_pairs(tmp_path / "short.conll", *["ann/B-PER sees/O", "bob/B-PER smith/E-PER sees/O"] * 6)
    long = write_pairs(tmp_path / "long.conll", *["ann/B-PER bob/I-PER smith/E-PER sees/O", "sees/O"] * 6)
    none = write_pairs(tmp_path / "none.conll", *["sees/O likes/O"] * 12)
    before = train(tmp_path, short, max_epochs=3)
    for k, (path, new) in enumerate([(long, ["I-PER"]), (none, [])]):
        made = config(path, max_epochs=1, learning_rate=1e-12)
        TaggerTask.train(made, tmp_path / f"{k}", Console(quiet=True), Run.open(tmp_path / "run"))
        after = throughtime.load(tmp_path / f"{k}")
        assert after.tags == before.tags + new and after.scheme == before.scheme == "bioes"
        head, old = after.model.head, before.model.head
        assert head.legal.tolist() == legal_transitions(after.tags)
        size = len(before.tags)
        assert torch.allclose(head.transitions[:size, :size], old.transitions)
        assert torch.allclose(head.linear.weight[:size], old.linear.weight)
    words = write_pairs(tmp_path / "words.conll", *["ann/N sees/V"] * 12)
    with pytest.raises(ConfigError, match=r"the run has tags of spans \(bioes\) and the data of no spans"):
        TaggerTask.train(config(words), tmp_path / "2", Console(quiet=True), Run.open(tmp_path / "run"))


def test_columns_are_chosen_by_number(task, tmp_path):
    rows = [
        [f"{k} {tag} {word} _" for k, (word, tag) in enumerate(zip(s, tags_of(s), strict=True))]
        for s in sentences(40)
    ]
    path = tmp_path / "data.conll"
    path.write_text("\n\n".join("\n".join(row) for row in rows))
    other = train(tmp_path, path, data={"words": "3", "tags": "2"})
    assert other.evaluate((path,))["f1"] == 1
    assert predicted(other, path) == path.read_text() + "\n\n"
    asked = sentences(5, seed=1)
    assert [a["tags"] for a in other.answer(asked)] == [a["tags"] for a in task.answer(asked)]


def write_conllu(path, rows, upos=None):
    """Sentences with comments, and with rows that are no words."""
    lines = []
    for number, words in enumerate(rows):
        lines += [f"# sent_id = {number}", f"1-2\t{words[0]}{words[1]}" + "\t_" * 8]
        for k, word in enumerate(words, 1):
            tag, other = upos or WORDS[word][0], WORDS[word][1]
            lines.append(f"{k}\t{word}\t{word}\t{tag}\t{other}\t_\t0\troot\t_\tSpaceAfter=No")
        lines += [f"{len(words)}.1\tghost" + "\t_" * 8, ""]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_conllu_is_tagged_with_parts_of_speech_or_with_a_column_by_name(tmp_path):
    path = write_conllu(tmp_path / "data.conllu", sentences(40))
    of_speech = train(tmp_path, path)
    assert of_speech.tags == ["ADJ", "NOUN", "PROPN", "VERB"]
    metrics = of_speech.evaluate((path,))
    assert metrics["accuracy"] == 1 and metrics.keys() == {"loss", "accuracy"}
    assert "spans" not in of_speech.answer(["ann sees paris"])[0]
    new = sentences(6, seed=1)
    wrong, right = tmp_path / "wrong.conllu", write_conllu(tmp_path / "right.conllu", new)
    assert predicted(of_speech, write_conllu(wrong, new, upos="X")) == right.read_text()
    for name, text in ("words.conll", "ann\nsees\n"), ("pairs.conll", "ann X\nsees X\n"):
        (tmp_path / name).write_text(text)
        assert predicted(of_speech, tmp_path / name) == "ann PROPN\nsees VERB\n\n"
    (tmp_path / "penn").mkdir()
    penn = train(tmp_path / "penn", path, data={"tags": "xpos"})
    assert penn.tags == ["JJ", "NN", "NNP", "VBZ"]
    assert predicted(penn, wrong) == wrong.read_text()


def test_words_and_tags_may_be_in_two_files(task, tmp_path):
    words, tags = tmp_path / "data.words", tmp_path / "data.tags"
    words.write_text("\n".join(map(" ".join, sentences(40))))
    tags.write_text("\n".join(" ".join(tags_of(s)) for s in sentences(40)))
    other = train(tmp_path, words, tags, data={"parallel": True})
    for one, two in zip(task.answer(sentences(9)), other.predict(other.inputs(words)), strict=False):
        assert one["tags"] == two["tags"] and one["probabilities"] == pytest.approx(
            two["probabilities"], abs=1e-4
        )
    assert other.evaluate((words, tags)) == pytest.approx(
        task.evaluate(task.config.data.paths), rel=1e-2, abs=1e-4
    )
    assert predicted(other, words).startswith(" ".join(f"{w}/{WORDS[w][2]}" for w in sentences(1)[0]) + "\n")
    with pytest.raises(DataError, match="two files, one of words and one of tags, got 1"):
        other.evaluate((words,))


@pytest.mark.parametrize("packed", [False, True])
def test_the_inputs_in_a_text_are_its_lines(task, tmp_path, packed):
    path = tmp_path / ("lines.txt.gz" if packed else "lines.txt")
    content = b"ann sees paris\n\nbob likes new york\n"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert predicted(task, path) == "ann/B-PER sees/O paris/B-LOC\n\nbob/B-PER likes/O new/B-LOC york/I-LOC\n"


# What is read, and what comes back.


def test_an_answer_has_the_spans_of_words(task):
    [answer] = task.answer(["bob smith sees new york today"])
    assert answer["words"] == ["bob", "smith", "sees", "new", "york", "today"]
    assert answer["tags"] == ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]
    assert answer["spans"] == [
        {"kind": "PER", "start": 0, "stop": 2, "text": "bob smith"},
        {"kind": "LOC", "start": 3, "stop": 5, "text": "new york"},
    ]
    assert all(0.5 < p <= 1 for p in answer["probabilities"])
    assert task.show(answer) == "bob/B-PER smith/I-PER sees/O new/B-LOC york/I-LOC today/O"


def test_the_probability_is_that_of_the_tag_at_the_word(task):
    """Of all sequences of tags, it is what those with this tag there have together."""
    words = ["smith", "paris"]
    [answer] = task.answer([words])
    [(_, batch)] = task.input_batches([words])
    numbers = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    nats = []
    for row in numbers:
        try:
            nats.append(float(task.model.loss(replace(batch, targets=row[None])).total.detach()))
        except throughtime.errors.ShapeError:  # not legal
            nats.append(math.inf)
    p = torch.tensor(nats).neg().exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    for at, tag in enumerate(answer["tags"]):
        there = numbers[:, at] == task.tags.index(tag)
        assert answer["probabilities"][at] == pytest.approx(float(p[there].sum()), abs=1e-5)


def test_a_sentence_comes_as_text_or_as_words_or_as_read_from_a_file(task, tmp_path):
    path = write_pairs(tmp_path / "new.conll", "ann/X/O sees/X/O")
    forms = ["  ann \t sees ", ("ann", "sees"), *task.inputs(path)]
    one, two, three = task.answer(forms)
    assert one == two
    assert three == one | {"conll": "ann X B-PER\nsees X O\n"}
    assert [answer["words"] for answer in task.answer([["ann smith", ""]])] == [["ann smith", ""]]


def test_case_makes_no_difference_where_only_words_are_read(task):
    one, two = task.answer(["ann sees PARIS", "Ann SEES paris"])
    assert one["tags"] == two["tags"] == ["B-PER", "O", "B-LOC"]
    assert one["probabilities"] == two["probabilities"]


def test_raw_text_is_cut_into_words_and_signs(task):
    text = "Ann sees Paris, Bob (Smith) sees."
    assert task.answer([text])[0]["words"] == ["Ann", "sees", "Paris,", "Bob", "(Smith)", "sees."]
    task.config = task.config.model_copy(update={"search": ReadingConfig(raw=True)})
    try:
        [answer], [parts] = task.answer([text]), task.answer([["Paris,"]])
    finally:
        task.config = task.config.model_copy(update={"search": ReadingConfig()})
    assert answer["words"] == ["Ann", "sees", "Paris", ",", "Bob", "(", "Smith", ")", "sees", "."]
    assert [answer["tags"][k] for k in (0, 2)] == ["B-PER", "B-LOC"]
    assert parts["words"] == ["Paris,"]


def test_an_empty_sentence_has_an_empty_answer(task):
    nothing = {"words": [], "tags": [], "probabilities": [], "spans": []}
    answers = task.answer(["", "ann", [], " \t "])
    assert [answers[k] for k in (0, 2, 3)] == [nothing] * 3 and answers[1]["tags"] == ["B-PER"]
    assert task.show(nothing) == "" and task.answer([]) == []


def test_a_sentence_of_100_000_words(task):
    [answer] = task.answer(["bob smith sees paris " * 25_000])
    assert answer["tags"] == ["B-PER", "I-PER", "O", "B-LOC"] * 25_000
    assert len(answer["spans"]) == 50_000 and len(answer["probabilities"]) == 100_000


def test_words_that_were_never_seen_are_told_apart_by_their_spelling(tmp_path):
    random = Random(0)

    def made(path):
        words = [
            ["".join(random.choices("klmn", k=4)) + random.choice("ay") for _ in range(5)] for _ in range(60)
        ]
        path.write_text("\n\n".join("\n".join(f"{w}\t{w[-1].upper()}" for w in s) for s in words))
        return path

    task = train(
        tmp_path,
        made(tmp_path / "data.conll"),
        model={"character_encoder": "recurrent", "character_hidden": 8, "word_dropout": 0.5},
        batch_tokens=60,
    )
    assert task.evaluate((made(tmp_path / "new.conll"),))["accuracy"] > 0.9


# Schemes.


def test_the_model_may_have_another_scheme_than_the_data(tmp_path):
    path = write(tmp_path / "data.conll", sentences(40))
    task = train(tmp_path, path, data={"scheme": "bioes"})
    assert task.tags == ["B-LOC", "B-PER", "E-LOC", "E-PER", "O", "S-LOC", "S-PER"]
    assert task.answer(["ann likes new york"])[0]["tags"] == ["B-PER", "O", "B-LOC", "I-LOC"]
    metrics = task.evaluate((path,))
    assert metrics["f1"] == metrics["accuracy"] == 1
    assert predicted(task, path) == path.read_text() + "\n"


def test_the_scheme_of_the_data_is_kept_where_the_model_has_the_simpler_one(tmp_path):
    path = write(tmp_path / "data.conll", sentences(40), lambda words: bioes(tags_of(words)))
    task = train(tmp_path, path, data={"scheme": "bio"})
    assert task.tags == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
    assert task.answer(["ann likes new york"])[0]["tags"] == ["S-PER", "O", "B-LOC", "E-LOC"]
    assert task.evaluate((path,))["accuracy"] == 1
    assert predicted(task, path) == path.read_text() + "\n"


def test_illegal_tags_are_repaired_and_counted(task, tmp_path, caplog):
    rows = ["ann/I-PER smith/I-PER sees/O new/B-LOC york/I-PER", "bob/B-PER smith/B-PER likes/O paris/I-LOC"]
    metrics = task.evaluate((write_pairs(tmp_path / "new.conll", *rows),))
    # Repaired: ann and paris begin a name, and so does york, wrongly; the second smith is legal and wrong.
    assert "3 tags did not follow the bio scheme and were repaired" in caplog.text
    assert metrics["accuracy"] == pytest.approx(7 / 9)
    # True: ann smith, new, york, bob, smith, paris. Found: ann smith, new york, bob smith, paris.
    assert metrics["recall"] == pytest.approx(2 / 6) and metrics["precision"] == pytest.approx(2 / 4)


def test_training_reads_the_repaired_tags(tmp_path, caplog):
    """As those of the first files of CoNLL-2003, where a name begins with I."""
    path = write(
        tmp_path / "data.conll", sentences(40), lambda s: [t.replace("B-", "I-") for t in tags_of(s)]
    )
    task = train(tmp_path, path)
    assert task.tags == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
    assert task.evaluate((path,))["accuracy"] == 1
    assert "80 tags did not follow the bio scheme" in caplog.text
    part = task.encode(task.open((write_pairs(tmp_path / "new.conll", "ann/I-PER sees/I-LOC"),)))
    assert task.sample(part) == "ann/B-PER sees/O(B-LOC!)"


def test_a_scheme_for_tags_of_no_spans_is_refused(tmp_path):
    path = write_conllu(tmp_path / "data.conllu", sentences(20))
    with pytest.raises(DataError, match=r"--scheme bioes is for tags of spans, as B-PER, .* leave it out"):
        train(tmp_path, path, data={"scheme": "bioes"})
    assert not (tmp_path / "run").exists()


def test_a_sentence_has_legal_tags_and_probabilities_whatever_lengths_there_were(tmp_path):
    """Names of two words are all there is: no legal tags of one word are among these."""
    path = write_pairs(tmp_path / "data.conll", *["new/B-LOC york/E-LOC"] * 20)
    task = train(tmp_path, path)
    one, two, three = task.answer(["new", "new york", "york new york"])
    assert one["tags"] == ["O"] and two["tags"] == ["B-LOC", "E-LOC"]
    for answer in (one, two, three):
        assert all(0 < p <= 1 + 1e-6 for p in answer["probabilities"])


@pytest.mark.parametrize("head", ["crf", "softmax"])
def test_what_is_answered_is_legal_and_learnt_with_either_head(tmp_path, head):
    path = write(tmp_path / "data.conll", sentences(40))
    task = train(tmp_path, path, model={"head": head})
    assert task.evaluate((path,))["f1"] == 1
    odd = ["smith", "york", "sees", "york", "smith", "paris", "york", "new", "smith"]
    answers = task.answer([odd[k:] for k in range(9)] + [["york"], ["smith"]])
    assert all(legal(answer["tags"]) for answer in answers)
    assert all(0 < p <= 1 + 1e-6 for answer in answers for p in answer["probabilities"])
    if head == "softmax":  # which knows of smith that it goes on with a name
        assert answers[-1]["tags"] == ["B-PER"] and answers[-1]["spans"][0]["text"] == "smith"


# What is measured.


def test_f1_and_accuracy_are_counted_by_hand(task, tmp_path):
    path = write_pairs(
        tmp_path / "new.conll",
        "ann/B-PER smith/I-PER sees/O paris/B-PER",  # paris: another kind
        "bob/B-PER likes/O new/B-LOC york/O today/O",  # new york: another end
        "ann/O sees/B-LOC today/O",  # ann found in error, sees missed
    )
    metrics = task.evaluate((path,))
    # True: 5. Found: ann smith, paris, bob, new york, ann. Both: ann smith, bob.
    assert metrics["precision"] == pytest.approx(2 / 5)
    assert metrics["recall"] == pytest.approx(2 / 5)
    assert metrics["f1"] == pytest.approx(2 / 5)
    assert metrics["accuracy"] == pytest.approx(8 / 12)


def test_tags_that_training_never_saw_count_as_wrong_and_are_not_in_the_loss(task, tmp_path, caplog):
    known = "ann/B-PER smith/I-PER sees/O"
    before = task.evaluate((write_pairs(tmp_path / "known.conll", known),))
    assert before["accuracy"] == before["f1"] == 1 and not caplog.records
    path = write_pairs(tmp_path / "new.conll", known, "bob/B-PER sees/O new/B-ORG york/I-ORG")
    after = task.evaluate((path,))
    assert "new.conll, line 5 has the tag B-ORG, which training never saw: 2 words like it" in caplog.text
    assert after["accuracy"] == pytest.approx(5 / 7)
    assert after["recall"] == pytest.approx(2 / 3) and after["precision"] == pytest.approx(2 / 3)
    assert after["loss"] == pytest.approx(before["loss"])
    unknown = write_pairs(tmp_path / "unknown.conll", "new/B-ORG york/I-ORG")
    with pytest.raises(DataError, match=r"has the tag B-ORG, .* no other tag is known either"):
        task.evaluate((unknown,))


def test_the_best_weights_are_those_of_the_best_f1_or_accuracy_where_there_are_no_spans(task):
    metrics = {"f1": 0.7, "precision": 0.6, "recall": 0.9, "accuracy": 0.8, "loss": 3.0}
    assert task.quality(metrics) == 0.7
    assert task.quality({"accuracy": 0.8, "loss": 3.0}) == 0.8


# Pretrained vectors, and what is wrong with data.


def write_vectors(path, dimensions):
    rows = [f"{word} {' '.join(str(k + j / 8) for j in range(dimensions))}" for k, word in enumerate(WORDS)]
    path.write_text("\n".join(rows[:3]) + "\n")
    return path


def test_a_word_begins_as_its_pretrained_vector(tmp_path, caplog):
    data = {"vectors": write_vectors(tmp_path / "vectors.txt", 4)}
    path = write(tmp_path / "data.conll", sentences(20))
    task = train(tmp_path, path, data=data, model={"embedding": 4}, max_epochs=1, learning_rate=1e-9)
    rows = task.model.embedding.weight[task.vocabulary.encode(["ann", "Smith"])]
    assert torch.allclose(rows, torch.tensor([[0.0], [2.0]]) + torch.arange(4) / 8, atol=1e-6)
    assert "33.3 % of 9 words have a vector" in caplog.text
    (tmp_path / "vectors.txt").unlink()
    assert len(throughtime.load(tmp_path / "run").answer(["ann"])) == 1


def test_vectors_of_other_dimensions_name_the_option_that_is_wanted(tmp_path):
    data = {"vectors": write_vectors(tmp_path / "vectors.txt", 4)}
    path = write(tmp_path / "data.conll", sentences(20))
    with pytest.raises(ConfigError, match=r"vectors\.txt has vectors of 4 .* reads 8: add --embedding 4$"):
        train(tmp_path, path, data=data)
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_read_are_named(task, tmp_path):
    path = tmp_path / "new.conll"
    path.write_text("ann PROPN B-PER\nsees VERB\n")
    for read in (lambda: train(tmp_path, path), lambda: task.evaluate((path,)), lambda: task.inputs(path)):
        with pytest.raises(DataError, match=r"new\.conll, line 2: 3 columns are wanted, got 2"):
            read()
    with pytest.raises(DataError, match="no data: give files of a word a line"):
        train(tmp_path)
