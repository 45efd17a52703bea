"""Spans of tags: by hand, against a table of the evaluation script's rules, and as laws."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.spans import Span, legal_transitions, repair, scheme, span_f1, spans
from throughtime.errors import DataError

BIO = ["O", "B-x", "I-x", "B-y", "I-y"]
BIOES = [*BIO, "E-x", "S-x", "E-y", "S-y"]
sentences = st.lists(st.sampled_from(BIO), max_size=9)
any_sentences = st.lists(st.sampled_from(BIOES), max_size=9)
corpora = st.lists(st.lists(st.tuples(*2 * [st.sampled_from(BIOES)]), max_size=6), max_size=5)


def by_table(tags):
    """Chunks by the evaluation's table of which pairs of marks end one chunk and which begin another."""
    ends = {"BB", "BS", "BO", "IB", "IS", "IO"} | {a + b for a in "ES" for b in "BIESO"}
    begins = {a + b for a in "BIESO" for b in "BS"} | {"EE", "EI", "SE", "SI", "OE", "OI"}
    found, start, last, last_kind = set(), None, "O", ""
    for t, tag in enumerate([*tags, "O"]):
        mark, kind = tag[0], tag[2:]
        pair, other = last + mark, kind != last_kind
        if start is not None and (pair in ends or other):
            found.add((last_kind, start, t))
            start = None
        if mark != "O" and (pair in begins or other):
            start = t
        last, last_kind = mark, kind
    return found


def as_tuples(found):
    return {(span.kind, span.start, span.stop) for span in found}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-x", [("x", 0, 1)]),
        ("O B-x I-x O B-y", [("x", 1, 3), ("y", 4, 5)]),
        ("B-x B-x I-x", [("x", 0, 1), ("x", 1, 3)]),
        ("I-x I-x B-x I-y", [("x", 0, 2), ("x", 2, 3), ("y", 3, 4)]),
        ("S-x B-x I-x E-x E-x", [("x", 0, 1), ("x", 1, 4), ("x", 4, 5)]),
        ("B-x O I-x S-x I-x", [("x", 0, 1), ("x", 2, 3), ("x", 3, 4), ("x", 4, 5)]),
        ("B-a-b I-a-b I-a", [("a-b", 0, 2), ("a", 2, 3)]),
        ("B I O B", [("", 0, 2), ("", 3, 4)]),
        ("NOUN B-x VERB", [("x", 1, 2)]),
    ],
)
def test_spans_by_hand(tags, expected):
    assert spans(tags.split()) == [Span(*each) for each in expected]


def test_every_short_sequence_is_read_as_the_evaluation_reads_it():
    for length in range(5):
        for tags in product(BIOES, repeat=length):
            assert as_tuples(spans(tags)) == by_table(tags)


@given(any_sentences)
def test_spans_are_in_order_and_do_not_overlap(tags):
    found = spans(tags)
    places = [t for span in found for t in range(span.start, span.stop)]
    assert places == sorted(set(places)) == [t for t, tag in enumerate(tags) if tag != "O"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-x", "I-x"], "bio"),
        (["I-x", "O"], "bio"),
        (["B-x"], "bio"),
        (["B", "I", "O"], "bio"),
        (["O", "B-x", "I-x", "E-x", "S-x"], "bioes"),
        (["O", "S-x"], "bioes"),
        (["B-x", "E-x"], "bioes"),
        (["NOUN", "VERB", "O"], None),
        (["B-x", "O", "X-y"], None),
        (["B-x", "Outside"], None),
        (["O"], None),
        ([], None),
    ],
)
def test_scheme(tags, expected):
    assert scheme(tags) == expected


@pytest.mark.parametrize(
    ("tags", "to", "expected", "changed"),
    [
        ("O I-x I-x", None, "O B-x I-x", 1),
        ("B-x I-y I-y", None, "B-x B-y I-y", 1),
        ("I-x O I-x", None, "B-x O B-x", 2),
        ("B-x I-x B-x", None, "B-x I-x B-x", 0),
        ("B-x O S-x", None, "S-x O S-x", 1),
        ("I-x I-x O S-y", "bioes", "B-x E-x O S-y", 2),
        ("B-x I-x O", "bioes", "B-x E-x O", 1),
        ("B-x E-x I-x", "bioes", "B-x E-x S-x", 1),
        ("I I O", None, "B I O", 1),
        ("NOUN I-x", None, "NOUN I-x", 0),
        ("", None, "", 0),
    ],
)
def test_repair_by_hand(tags, to, expected, changed):
    assert repair(tags.split(), to) == (expected.split(), changed)


@pytest.mark.parametrize(("labels", "to"), [(BIO, "bio"), (BIOES, "bioes")])
def test_repaired_tags_are_the_same_spans_and_legal_and_legal_ones_stay(labels, to):
    legal = legal_transitions(labels)
    for tags in (tags for length in range(5) for tags in product(labels, repeat=length)):
        written, changed = repair(tags, to)
        assert spans(written) == spans(tags)
        assert is_legal(written, labels, legal)
        assert repair(written, to) == (written, 0)
        # What is legal is exactly what needs no repair.
        assert is_legal(tags, labels, legal) == (changed == 0)
        assert changed == sum(a != b for a, b in zip(tags, written, strict=True))


def is_legal(tags, labels, legal):
    places = [len(labels), *map(labels.index, tags), len(labels)]
    return all(legal[a][b] for a, b in pairwise(places))


def test_legal_transitions_by_hand():
    x, o = True, False
    assert legal_transitions(["O", "B-a", "I-a", "I-b"]) == [
        [x, x, o, o, x],
        [x, x, x, o, x],
        [x, x, x, o, x],
        [x, x, o, x, x],
        [x, x, o, o, x],
    ]
    assert legal_transitions(["O", "B", "I", "E", "S"]) == [
        [x, x, o, o, x, x],
        [o, o, x, x, o, o],
        [o, o, x, x, o, o],
        [x, x, o, o, x, x],
        [x, x, o, o, x, x],
        [x, x, o, o, x, x],
    ]
    assert legal_transitions(["NOUN", "VERB"]) == [[x] * 3] * 3


# F1.


def test_f1_by_hand():
    """Three true spans and four found, of which two are true: 2/4, 2/3, 4/7."""
    gold = [["B-x", "I-x", "O", "B-y"], ["O", "B-x"]]
    predicted = [["B-x", "I-x", "O", "B-x"], ["B-y", "B-x"]]
    x = {"precision": 2 / 3, "recall": 1.0, "f1": 4 / 5, "support": 2}
    y = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    both = {"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "support": 3}
    assert span_f1(gold, predicted) == both | {"kinds": {"x": x, "y": y}}


@pytest.mark.parametrize("predicted", ["B-x O O", "B-x I-x I-x", "B-y I-y O", "B-x B-x O", "O B-x O"])
def test_a_span_that_is_not_exactly_right_counts_nothing(predicted):
    found = span_f1([["B-x", "I-x", "O"]], [predicted.split()])
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


@pytest.mark.parametrize("gold", [[], [[]], [["O", "O"]]])
def test_nothing_to_find_is_0(gold):
    assert span_f1(gold, gold) == {"precision": 0, "recall": 0, "f1": 0, "support": 0, "kinds": {}}


@given(corpora)
def test_f1_is_that_of_counting_every_stretch(corpus):
    """Independently: is each stretch of words, of each kind, a span of one and of the other?."""
    gold = [[a for a, _ in pairs] for pairs in corpus]
    predicted = [[b for _, b in pairs] for pairs in corpus]
    true, found, both = Counter(), Counter(), Counter()
    for ours, theirs in zip(gold, predicted, strict=True):
        one, other = by_table(ours), by_table(theirs)
        for start, stop, kind in product(range(7), range(8), "xy"):
            in_one, in_other = (kind, start, stop) in one, (kind, start, stop) in other
            for key in (kind, "all"):
                true[key] += in_one
                found[key] += in_other
                both[key] += in_one and in_other
    result = span_f1(gold, predicted)
    rows = {"all": result} | result["kinds"]
    assert set(result["kinds"]) == {kind for kind in "xy" if true[kind] + found[kind]}
    for key, row in rows.items():
        p = Fraction(both[key], max(found[key], 1))
        r = Fraction(both[key], max(true[key], 1))
        f = 2 * p * r / (p + r) if p + r else 0
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((float(p), float(r), float(f)))
        assert row["support"] == true[key]


def test_sentences_that_are_not_as_many_or_as_long_are_refused():
    with pytest.raises(DataError, match=r"sentence 2 has 1 true and 2 predicted tags"):
        span_f1([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(DataError, match=r"1 predicted sentences and more true ones"):
        span_f1([["O"], ["O"]], [["O"]])
    with pytest.raises(DataError, match=r"0 true sentences and more predicted ones"):
        span_f1(iter([]), iter([["O"]]))
