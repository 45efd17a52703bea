"""The conditional random field against all sequences written out, with forbidden transitions and without."""

from itertools import pairwise, product
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from throughtime.errors import ShapeError
from throughtime.heads import chain
from throughtime.heads.chain import Scores, sum_in_log_space, sum_scaled
from throughtime.heads.crf import CRF

FEATURES, CLASSES = 5, 3
LENGTHS = torch.tensor([4, 0, 1, 2, 3, 4])
#: What may follow what, and stand at the begin (last row) and at the end (last column): class 1 only after
#: 0 and 1, as I-x after B-x and I-x, and class 2 never last.
LEGAL = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 1]]).bool()
#: From 2 there is no way but to 2, and it is no end: what comes there has no probability.
DEAD_END = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]]).bool()
#: Each class once, in order: there is no legal sequence beyond three steps.
ONCE = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0]]).bool()
#: Only 2 begins and goes on, and it is no end: no sequence is legal.
NO_END = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]]).bool()
every_table = pytest.mark.parametrize("legal", [None, LEGAL, DEAD_END], ids=["all", "legal", "dead_end"])


def make(legal=None, classes=CLASSES, scale=1.0):
    head = CRF(FEATURES, classes, legal).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=scale)
    return head


def problem(lengths=LENGTHS, steps=4):
    return torch.randn(len(lengths), steps, FEATURES, dtype=torch.float64, requires_grad=True), lengths


def allowed(head, sequence):
    marks = [head.classes, *sequence, head.classes]
    return head.legal is None or all(head.legal[a, b] for a, b in pairwise(marks))


def score(head, emissions, sequence):
    """The score of one sequence, term by term."""
    total = head.begin[sequence[0]] + head.end[sequence[-1]]
    for step, k in enumerate(sequence):
        total = total + emissions[step, k]
    for a, b in pairwise(sequence):
        total = total + head.transitions[a, b]
    return total


def enumerate_row(head, row, length):
    """All legal sequences of a row of features, and the score of each."""
    emissions = row @ head.linear.weight.T + head.linear.bias
    sequences = [s for s in product(range(head.classes), repeat=int(length)) if allowed(head, s)]
    return sequences, torch.stack([score(head, emissions, s) for s in sequences])


def draw_targets(head, x, lengths):
    """A legal sequence for each row, -100 in padding."""
    targets = torch.full(x.shape[:2], -100)
    for row, length in enumerate(lengths.tolist()):
        if length:
            sequences, _ = enumerate_row(head, x[row].detach(), length)
            targets[row, :length] = torch.tensor(sequences[torch.randint(len(sequences), ())])
    return targets


def loss_by_enumeration(head, x, targets, lengths):
    total = x.new_zeros(())
    for row, length in enumerate(lengths.tolist()):
        if length:
            sequences, scores = enumerate_row(head, x[row], length)
            gold = scores[sequences.index(tuple(targets[row, :length].tolist()))]
            total = total + scores.logsumexp(0) - gold
    return total


def gradients(total, head, x):
    return torch.autograd.grad(total, [x, *head.parameters()])


@every_table
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_loss_and_its_gradients_are_those_of_all_sequences(legal, scale):
    head, (x, lengths) = make(legal, scale=scale), problem()
    targets = draw_targets(head, x, lengths)
    loss, expected = head.loss(x, targets, lengths), loss_by_enumeration(head, x, targets, lengths)
    assert loss.count == lengths.sum()
    assert loss.total.dtype == torch.float64
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(
        gradients(loss.total, head, x), gradients(expected, head, x), rtol=1e-10, atol=1e-10
    )


@every_table
def test_the_gradient_of_the_mean(legal):
    """What comes back to the loss need not be 1."""
    head, (x, lengths) = make(legal), problem()
    targets = draw_targets(head, x, lengths)
    expected = loss_by_enumeration(head, x, targets, lengths) / int(lengths.sum())
    found = head.loss(x, targets, lengths).mean
    torch.testing.assert_close(gradients(found, head, x), gradients(expected, head, x))


@every_table
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_best_sequence_is_the_best_of_all(legal, scale):
    head, (x, lengths) = make(legal, scale=scale), problem()
    found = head.decode(x, lengths)
    assert found.shape == x.shape[:2]
    for row, length in enumerate(lengths.tolist()):
        assert (found[row, length:] == -100).all()
        if length:
            sequences, scores = enumerate_row(head, x[row], length)
            assert tuple(found[row, :length].tolist()) == sequences[scores.argmax()]


@every_table
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_marginals_are_sums_over_all_sequences(legal, scale):
    head, (x, lengths) = make(legal, scale=scale), problem()
    found = head.marginals(x, lengths)
    assert not found.requires_grad
    expected = torch.zeros(*x.shape[:2], CLASSES, dtype=torch.float64)
    for row, length in enumerate(lengths.tolist()):
        if length:
            sequences, scores = enumerate_row(head, x[row].detach(), length)
            for sequence, p in zip(sequences, scores.softmax(0), strict=True):
                for step, k in enumerate(sequence):
                    expected[row, step, k] += p
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)


@every_table
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_gradient_is_that_of_differences(legal, scale):
    emissions, scores, lengths = chains(CLASSES, 4, 6, scale)
    tables = [each.requires_grad_() for each in (emissions, *scores)]

    def total(emissions, *scores):
        return chain.log_partition(emissions, forbid(scores, legal), lengths)

    assert torch.autograd.gradcheck(total, tables, rtol=1e-5)


@every_table
def test_nothing_in_padding_is_read(legal):
    head, (x, lengths) = make(legal), problem()
    targets = draw_targets(head, x, lengths)
    padding = torch.arange(4) >= lengths[:, None]
    dirty = x.detach().masked_fill(padding[..., None], torch.nan).requires_grad_()
    wrong = targets.masked_fill(padding, 77)
    clean, found = head.loss(x, targets, lengths).total, head.loss(dirty, wrong, lengths).total
    assert clean == found
    before, after = gradients(clean, head, x), gradients(found, head, dirty)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (after[0][padding] == 0).all()
    assert torch.equal(head.decode(x, lengths), head.decode(dirty, lengths))
    assert torch.equal(head.marginals(x, lengths), head.marginals(dirty, lengths))


@every_table
def test_a_row_alone_or_with_more_padding_gives_the_same(legal):
    head, (x, lengths) = make(legal), problem()
    path, p = head.decode(x, lengths), head.marginals(x, lengths)
    longer = torch.cat([x, torch.full((len(x), 3, FEATURES), torch.nan)], 1)
    assert torch.equal(head.decode(longer, lengths)[:, :4], path)
    torch.testing.assert_close(head.marginals(longer, lengths)[:, :4], p)
    for row, length in enumerate(lengths.tolist()):
        one = x[row : row + 1, :length], lengths[row : row + 1]
        assert torch.equal(head.decode(*one)[0], path[row, :length])
        torch.testing.assert_close(head.marginals(*one)[0], p[row, :length])


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (2, 4)], ids=str)
def test_nothing_to_tag(shape):
    head = make(LEGAL)
    x, lengths = torch.randn(*shape, FEATURES, dtype=torch.float64, requires_grad=True), torch.zeros(shape[0])
    lengths = lengths.long()
    loss = head.loss(x, torch.full(shape, -100), lengths)
    assert (loss.total.item(), loss.count) == (0, 0)
    loss.total.backward()
    assert (x.grad == 0).all()
    assert (head.decode(x, lengths) == torch.full(shape, -100)).all()
    assert torch.equal(head.marginals(x, lengths), torch.zeros(*shape, CLASSES, dtype=torch.float64))


def test_what_is_not_legal_has_no_probability_and_is_never_decoded():
    head = make(LEGAL)
    with torch.no_grad():
        head.transitions[2, 1], head.begin[1], head.end[2] = 50.0, 50.0, 50.0
    x, lengths = problem(torch.full((40,), 6), 6)
    assert all(allowed(head, sequence) for sequence in head.decode(x, lengths).tolist())
    p = head.marginals(x, lengths)
    assert (p[:, 0, 1] == 0).all()
    assert (p[:, -1, 2] == 0).all()
    grads = gradients(head.loss(x, head.decode(x, lengths), lengths).total, head, x)
    by_transitions, by_begin, by_end = (
        grads[1 + [name for name, _ in head.named_parameters()].index(name)]
        for name in ("transitions", "begin", "end")
    )
    assert (by_transitions[~LEGAL[:-1, :-1]] == 0).all()
    assert by_begin[1] == 0
    assert by_end[2] == 0
    assert (by_transitions[LEGAL[:-1, :-1]] != 0).all()


# The two ways to sum.


def forbid(scores, legal):
    if legal is None:
        return Scores(*scores)
    tables = legal[:-1, :-1], legal[-1, :-1], legal[:-1, -1]
    return Scores(*(s.masked_fill(~table, -torch.inf) for s, table in zip(scores, tables, strict=True)))


def chains(classes=4, steps=7, rows=5, scale=1.0, legal=None):
    emissions = scale * torch.randn(steps, rows, classes, dtype=torch.float64)
    scores = [scale * torch.randn(*s, dtype=torch.float64) for s in ((classes,) * 2, (classes,), (classes,))]
    return emissions, forbid(scores, legal), torch.randint(0, steps + 1, (rows,))


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.floats(0.1, 8), st.integers(0, 10**6))
@settings(max_examples=50)
def test_scaled_messages_give_what_log_space_gives(classes, steps, rows, scale, seed):
    torch.manual_seed(seed)
    problem = chains(classes, steps, rows, scale)
    found = sum_scaled(*problem)
    if found is not None:
        torch.testing.assert_close(tuple(found), tuple(sum_in_log_space(*problem)), rtol=1e-9, atol=1e-9)


@every_table
def test_usual_scores_are_summed_by_scaled_messages(legal):
    problem = chains(CLASSES, 30, 8, 5.0, legal)
    found = sum_scaled(*problem)
    assert found is not None
    torch.testing.assert_close(tuple(found), tuple(sum_in_log_space(*problem)), rtol=1e-9, atol=1e-9)


def test_log_space_takes_over_where_messages_would_lose_the_answer():
    """A class that is hopeless for long, and then makes up for it: messages of either direction lose it."""
    steps = 40
    emissions = torch.zeros(steps, 1, 2, dtype=torch.float64)
    emissions[: steps // 2, 0, 1], emissions[steps // 2 :, 0, 1] = -40.0, 40.0
    stay = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=torch.float64)
    scores = Scores(stay, torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    problem = emissions, scores, torch.tensor([steps])
    assert sum_scaled(*problem) is None
    value, p, *_ = chain.sum_sequences(*problem)
    assert value.item() == pytest.approx(log(2), abs=1e-12)
    torch.testing.assert_close(p, torch.full_like(p, 0.5))


@pytest.mark.parametrize("which", range(4))
def test_steep_scores_are_summed_in_log_space(which):
    """Each table by itself: the emissions, the transitions, the begin and the end."""
    emissions, scores, lengths = chains()
    tables = [emissions, *scores]
    tables[which].view(-1, tables[which].shape[-1])[0, 0] -= 150
    assert sum_scaled(tables[0], Scores(*tables[1:]), lengths.fill_(7)) is None


def test_a_class_that_cannot_be_reached_gives_log_space_a_gradient_all_the_same():
    """Of three steps there is one legal sequence: it is certain."""
    emissions, scores, _ = chains(CLASSES, 3, 1, legal=ONCE)
    value, p, *counts = sum_in_log_space(emissions, scores, torch.tensor([3]))
    torch.testing.assert_close(p[:, 0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(counts[0], torch.eye(3, dtype=torch.float64).roll(1, 1).tril(2).triu(1))
    only = emissions[[0, 1, 2], 0, [0, 1, 2]].sum() + scores.transitions[[0, 1], [1, 2]].sum()
    torch.testing.assert_close(value, only + scores.begin[0] + scores.end[2])


@pytest.mark.parametrize(("legal", "steps"), [(ONCE, 4), (NO_END, 1), (NO_END, 3)])
def test_where_no_sequence_is_legal_there_is_next_to_nothing_to_sum(legal, steps):
    value, *by_scores = chain.sum_sequences(
        *chains(CLASSES, steps, 1, legal=legal)[:2], torch.tensor([steps])
    )
    assert chain.FORBIDDEN * 10 < value < chain.FORBIDDEN / 2
    assert all(each.isfinite().all() for each in by_scores)


def test_many_steps_lose_nothing():
    emissions, scores, _ = chains(3, 2000, 2, 3.0)
    problem = emissions, scores, torch.tensor([2000, 1999])
    found = sum_scaled(*problem)
    assert found is not None
    torch.testing.assert_close(tuple(found), tuple(sum_in_log_space(*problem)), rtol=1e-8, atol=1e-8)


def test_single_precision_is_double_to_rounding():
    head, (x, lengths) = make(LEGAL), problem()
    targets = draw_targets(head, x, lengths)
    expected, p, path = (
        head.loss(x, targets, lengths).total,
        head.marginals(x, lengths),
        head.decode(x, lengths),
    )
    head = head.float()
    found = head.loss(x.float(), targets, lengths).total
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.marginals(x.float(), lengths), p.float(), rtol=1e-4, atol=1e-6)
    assert torch.equal(head.decode(x.float(), lengths), path)


def test_long_sequences_in_single_precision_are_summed_in_double():
    """The emissions are the bias, to the last digit, and large: what they share must fall out of the loss."""
    head = CRF(FEATURES, CLASSES)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.normal_().add_(1000)
    x, targets = torch.zeros(1, 2000, FEATURES), torch.randint(CLASSES, (1, 2000))
    lengths = torch.tensor([2000])
    found, expected = (
        head.loss(x, targets, lengths).total,
        head.double().loss(x.double(), targets, lengths).total,
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-7, atol=0)


def test_numbers_that_are_not_are_seen_in_the_loss():
    head, (x, lengths) = make(), problem()
    targets = draw_targets(head, x, lengths)
    assert head.loss(x.detach().fill_(torch.nan), targets, lengths).total.isnan()


# As a module.


def test_at_first_it_is_a_softmax_for_each_step():
    head, (x, lengths) = CRF(FEATURES, CLASSES), problem()
    x = x.detach().float()
    real = torch.arange(4) < lengths[:, None]
    p = F.linear(x, head.linear.weight, head.linear.bias).softmax(-1)
    torch.testing.assert_close(head.marginals(x, lengths), p * real[..., None])
    assert torch.equal(head.decode(x, lengths)[real], p.argmax(-1)[real])


def test_training_finds_the_order_of_classes_that_features_do_not_tell():
    """Class 2 follows class 0, class 1 follows class 2; the features say nothing but where class 0 is."""
    targets = torch.tensor([[0, 2, 1, 0, 2, 1, 0, 2]]).expand(4, -1)
    lengths, x = torch.tensor([8, 7, 6, 5]), F.one_hot((targets == 0).long(), FEATURES).float()
    head = CRF(FEATURES, CLASSES)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=40)

    def closure():
        optimizer.zero_grad()
        loss = head.loss(x, targets, lengths).mean
        loss.backward()
        return loss

    optimizer.step(closure)
    assert head.loss(x, targets, lengths).mean < 0.02
    real = torch.arange(8) < lengths[:, None]
    assert torch.equal(head.decode(x, lengths), targets.masked_fill(~real, -100))


def test_the_table_of_what_is_legal_is_shown_and_no_weight():
    head = CRF(FEATURES, CLASSES, LEGAL)
    assert "4 of 16 not legal" in repr(head)
    assert "legal" not in head.state_dict()


def refusal(call):
    with pytest.raises(ShapeError) as caught:
        call()
    return str(caught.value)


def test_what_does_not_fit_is_refused():
    head, (x, lengths) = make(LEGAL), problem()
    targets = draw_targets(head, x, lengths)
    assert "[4, 4]" in refusal(lambda: CRF(FEATURES, CLASSES, LEGAL[:3, :3]))
    assert "torch.int64" in refusal(lambda: CRF(FEATURES, CLASSES, LEGAL.long()))
    assert f"[batch, time, {FEATURES}]" in refusal(lambda: head.decode(x[..., 1:], lengths))
    assert "lengths must lie in 0..4" in refusal(lambda: head.loss(x, targets, lengths + 1))
    assert "[6, 4]" in refusal(lambda: head.loss(x, targets[:, 1:], lengths))
    assert "torch.float32" in refusal(lambda: head.loss(x, targets.float(), lengths))
    for wrong in (3, -100):
        targets[0, 2] = wrong
        assert f"0..2, got {wrong}" in refusal(lambda: head.loss(x, targets, lengths))


@pytest.mark.parametrize(
    "illegal", [[1, 1, 1, 1], [0, 2, 1, 1], [0, 1, 1, 2]], ids=["begin", "inside", "end"]
)
def test_targets_that_are_not_legal_are_refused(illegal):
    head, (x, lengths) = make(LEGAL), problem()
    targets = draw_targets(head, x, lengths)
    targets[5] = torch.tensor(illegal)
    message = refusal(lambda: head.loss(x, targets, lengths))
    assert "row 5" in message
    assert str(illegal) in message
