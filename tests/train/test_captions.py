"""BLEU-1 to BLEU-4 and chrF over any number of references."""

import pytest
from sacrebleu import corpus_bleu

from throughtime.train.captions import caption_metrics, caption_signatures


def test_a_caption_is_compared_with_all_of_its_references():
    outputs = ["a dog runs on the grass", "two men run far", "a red ball is here now"]
    references = [
        ["a dog runs on grass", "the dog runs on the grass ."],
        ["two men run in"],
        ["a red ball is here now"],
    ]
    metrics = caption_metrics(outputs, references)
    streams = [[told[0] for told in references], [references[0][1], None, None]]
    assert metrics["bleu_4"] == pytest.approx(corpus_bleu(outputs, streams, force=True).score)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["bleu_1"] > metrics["bleu_2"] > metrics["bleu_3"] > metrics["bleu_4"] > 0
    fewer = caption_metrics(outputs, [told[:1] for told in references])
    assert fewer["bleu_2"] < metrics["bleu_2"] and fewer["chrf"] < metrics["chrf"]


def test_bleu_of_single_words_counts_them():
    # 3 of 4 words are in the reference, which is as long.
    assert caption_metrics(["a b c x"], [["a c b y"]])["bleu_1"] == pytest.approx(75)


def test_any_order_of_references_is_the_same():
    one = caption_metrics(["a b c", "d e"], [["a b", "a c c d"], ["d e"]])
    other = caption_metrics(["a b c", "d e"], [["a c c d", "a b"], ["d e"]])
    assert one == other


def test_signatures_name_what_was_computed():
    signatures = caption_signatures()
    assert signatures.keys() == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf"}
    assert all("nrefs:var" in signature for signature in signatures.values())
