"""Sums and maxima over all sequences of a linear chain: log-partition, marginals and the best path.

A sequence y of `length` classes has the score

    s(y) = begin[y_1] + Σ_t emissions[t, y_t] + Σ_t transitions[y_t-1, y_t] + end[y_length].

Scores of -inf forbid. Here time comes first; emissions after a row's length are not read, but must be finite.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from throughtime.nn.time import reverse

#: Stands for -inf where a difference of two of them would be NaN: no sum of real scores comes near it.
FORBIDDEN = -1e30
#: With scores that differ by less than `SPREAD` nats, and messages above `SMALLEST`, every product that is
#: formed is a normal number in double precision, and nothing is lost: that of two messages and a transition,
#: or of one message, a transition and an emission.
SPREAD, SMALLEST = 100.0, 1e-120


class Scores(NamedTuple):
    """What a chain scores beside its emissions; a transition goes from the row to the column."""

    transitions: Float[Tensor, "K K"]
    begin: Float[Tensor, "K"]
    end: Float[Tensor, "K"]


class Sum(NamedTuple):
    """The log-partition and its gradients: by the emissions, the marginals; by `Scores`, expected counts."""

    value: Float[Tensor, ""]
    emissions: Float[Tensor, "T B K"]
    transitions: Float[Tensor, "K K"]
    begin: Float[Tensor, "K"]
    end: Float[Tensor, "K"]


def log_partition(
    emissions: Float[Tensor, "T B K"], scores: Scores, lengths: Int[Tensor, "B"]
) -> Float[Tensor, ""]:
    """log Σ_y exp s(y), summed over the rows of the batch; it can be differentiated once."""
    return cast(Tensor, _LogPartition.apply(emissions, *scores, lengths))


@torch.no_grad()
def marginals(
    emissions: Float[Tensor, "T B K"], scores: Scores, lengths: Int[Tensor, "B"]
) -> Float[Tensor, "T B K"]:
    """p(y_t = k), zero in padding: the gradient of the log-partition by the emissions."""
    return sum_sequences(emissions, scores, lengths).emissions


def sum_sequences(emissions: Float[Tensor, "T B K"], scores: Scores, lengths: Int[Tensor, "B"]) -> Sum:
    """The log-partition with its gradients: with scaled messages, in log space where these lose something."""
    found = sum_scaled(emissions, scores, lengths)
    return sum_in_log_space(emissions, scores, lengths) if found is None else found


def sum_in_log_space(emissions: Float[Tensor, "T B K"], scores: Scores, lengths: Int[Tensor, "B"]) -> Sum:
    """α_t[j] = emissions[t, j] + log Σ_i exp(α_t-1[i] + transitions[i, j]) and autograd: for any scores."""
    leaves = [each.detach().requires_grad_() for each in (emissions, *scores)]
    with torch.enable_grad():
        steps, (transitions, begin, end) = leaves[0], (each.clamp(min=FORBIDDEN) for each in leaves[1:])
        alphas = [begin + steps[0]]
        for emission in steps[1:]:
            alphas.append(emission + (alphas[-1][:, :, None] + transitions).logsumexp(1))
        last = torch.stack(alphas)[lengths - 1, torch.arange(len(lengths), device=lengths.device)]
        value = (last + end).logsumexp(-1).masked_fill(lengths == 0, 0).sum()
    return Sum(value.detach(), *torch.autograd.grad(value, leaves, materialize_grads=True))


def sum_scaled(emissions: Float[Tensor, "T B K"], scores: Scores, lengths: Int[Tensor, "B"]) -> Sum | None:
    """The same by messages that are scaled to a sum of 1 at each step (Rabiner 1989, section V.A):

        a_t = x_t · (a_t-1 M) / c_t,    x = exp(emissions),  M = exp(transitions),

    and g, the same backwards in time, in one loop with it. Hence

        log Z = Σ_t log c_t + log Σ_k a_length[k] exp(end[k]),
        p(y_t = k) ∝ a_t[k] (M g_t+1)[k],  p(y_t = i, y_t+1 = j) ∝ a_t[i] M[i, j] g_t+1[j].

    A step is a product of matrices, which for many classes is many times faster than the sum in log space.

    Returns None where a number came so near to underflow that the answer might not be exact.
    """
    steps = torch.arange(len(emissions), device=lengths.device)[:, None]
    rows, padding = torch.arange(len(lengths), device=lengths.device), (steps >= lengths)[..., None]
    last = lengths - 1, rows  # in an empty row the last step of all, where the messages are zero
    largest = emissions.amax(-1, keepdim=True)
    x, m, ends = (emissions - largest).exp_(), _exp(scores.transitions), _exp(scores.end)
    messages, totals = _messages(x, m, _exp(scores.begin), ends, lengths, padding)
    forward, backward = messages
    to_come = torch.cat([backward[1:] @ m.T, torch.zeros_like(x[:1])])
    to_come[last] = ends
    p = to_come.mul_(forward)
    among = p.sum(-1, keepdim=True).masked_fill_(padding, 1)
    value = (totals.log() + largest).masked_fill_(padding, 0).sum() + among[last].log().sum()
    value = value + _taken_off(scores, lengths)
    if not _exact(x, scores, messages) or not value.isfinite():
        return None
    p.div_(among)
    counts = ((forward / among)[:-1].flatten(0, 1).T @ backward[1:].flatten(0, 1)) * m
    return Sum(value, p, counts, p[0].sum(0), p[last].sum(0))


def best_path(
    emissions: Float[Tensor, "T B K"], scores: Scores, lengths: Int[Tensor, "B"]
) -> Int[Tensor, "T B"]:
    """argmax_y s(y) (Viterbi 1967); anything in padding. Only scores are kept: which class a maximum came
    from is asked on the way back, of the one class that was taken."""
    into = scores.transitions.T.contiguous()
    reached = [scores.begin + emissions[0]]
    for emission in emissions[1:]:
        reached.append(emission + (reached[-1][:, None] + into).amax(-1))
    rows = torch.arange(len(lengths), device=lengths.device)
    final = (torch.stack(reached)[lengths - 1, rows] + scores.end).argmax(-1)
    path = [final]
    for step in range(len(emissions) - 1, 0, -1):
        before = (reached[step - 1] + into[path[-1]]).argmax(-1)
        path.append(torch.where(step < lengths, before, final))
    return torch.stack(path[::-1])


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *others: Tensor) -> Tensor:
        *scores, lengths = others
        value, *gradients = sum_sequences(emissions, Scores(*scores), lengths)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor | None, ...]:
        return *(by_value * gradient for gradient in ctx.saved_tensors), None


def _messages(
    x: Float[Tensor, "T B K"],
    m: Float[Tensor, "K K"],
    begin: Float[Tensor, "K"],
    end: Float[Tensor, "K"],
    lengths: Int[Tensor, "B"],
    padding: Bool[Tensor, "T B 1"],
) -> tuple[Float[Tensor, "2 T B K"], Float[Tensor, "T B 1"]]:
    """Messages of both directions, zero in padding, and what those forwards were divided by."""
    both, ways = torch.stack([x, reverse(x, lengths)], 1), torch.stack([m, m.T])
    message = both[0] * torch.stack([begin, end])[:, None]
    messages, totals = [], []
    for step in range(len(both)):
        if step:
            message = (message @ ways).mul_(both[step])
        totals.append(message.sum(-1, keepdim=True))
        message = message.div_(totals[-1])
        messages.append(message)
    forward, backward = torch.stack(messages, 1)
    found = torch.stack([forward, reverse(backward, lengths)])
    return found.masked_fill_(padding, 0), torch.stack(totals)[:, 0]


def _exact(x: Tensor, scores: Scores, messages: Tensor) -> bool:
    """Whether no number is so small that a product of a few of them could underflow.

    By induction no message is then zero that should not be.
    """
    spreads = [(each.where(each > -torch.inf, each.max()).min() - each.max()) for each in scores]
    steepest = torch.stack([*spreads, x.min().log()]).min()
    return bool((steepest > -SPREAD) & (messages.masked_fill(messages == 0, 1).min() > SMALLEST))


def _taken_off(scores: Scores, lengths: Tensor) -> Tensor:
    """What `_exp` took off the scores of all sequences."""
    transitions, begin, end = (each.max() for each in scores)
    return (transitions * (lengths - 1) + begin + end).where(lengths > 0, 0).sum()


def _exp(scores: Tensor) -> Tensor:
    return (scores - scores.max()).exp()
