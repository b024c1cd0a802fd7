"""The teacher's distribution, laid upon the tokens of the student's answer that are its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.distillation.teacher_tokens import HEAD, aligned, lay_candidates, with_divergence

LONG = list(range(100, 120))


@pytest.mark.parametrize(
    ("answer", "teacher", "expected"),
    [
        ([*LONG, 5, 6], LONG, (0, 20)),
        ([1, 2, 3, *LONG], LONG, (3, 20)),  # behind the diagnosis
        ([1, 2, *LONG[:15], 9, *LONG[16:]], LONG, (2, 15)),  # up to the first other token
        (LONG[:12], LONG, (0, 12)),
        (LONG, [*LONG[:10], 7], (0, 10)),
        ([1, *LONG[:3]], LONG[:3], (1, 3)),  # shorter than the head
        (LONG, [99, *LONG], (0, 0)),
        (LONG[:HEAD], [*LONG[: HEAD - 1], 7], (0, 0)),
        (LONG, [], (0, 0)),
        ([], LONG, (0, 0)),
    ],
)
def test_where_both_are_the_same(answer: list[int], teacher: list[int], expected: tuple[int, int]) -> None:
    assert aligned(answer, teacher) == expected


@given(
    before=st.lists(st.integers(0, 3), max_size=6),
    answer=st.lists(st.integers(0, 3), max_size=30),
    cut=st.integers(0, 30),
)
def test_same_tokens_are_the_same(before: list[int], answer: list[int], cut: int) -> None:
    own = [*before, *answer[:cut]]
    start, length = aligned(own, answer)
    assert own[start : start + length] == answer[:length]
    assert start + length <= len(own)
    if length and start + length < len(own) and length < len(answer):
        assert own[start + length] != answer[length]


def kept(*places: dict[int, float]) -> list[dict[str, Any]]:
    return [{"ids": list(place), "logprobs": torch.tensor(list(place.values())).log().tolist()} for place in places]


def test_candidates_stand_at_their_tokens() -> None:
    first: dict[str, Any] = {
        "teacher_ids": [4, 5],
        "teacher_candidates": kept({4: 0.6, 8: 0.2}, {5: 0.9, 1: 0.05, 2: 0.05}),
    }
    other: dict[str, Any] = {"teacher_ids": [9], "teacher_candidates": kept({9: 1.0})}
    answers = [(0, 2, [3, 4, 5], first), (1, 1, [8], other), (1, 3, [7], {"teacher_ids": None})]
    ids, probabilities = lay_candidates(answers, (2, 5))
    assert ids.shape == probabilities.shape == (2, 5, 3)
    assert ids[0, 3, :2].tolist() == [4, 8]
    assert probabilities[0, 3].tolist() == pytest.approx([0.75, 0.25, 0.0]), "of the candidates alone"
    assert ids[0, 4].tolist() == [5, 1, 2]
    assert probabilities[0, 4].tolist() == pytest.approx([0.9, 0.05, 0.05])
    assert probabilities.sum(-1).nonzero().tolist() == [[0, 3], [0, 4]], "where the answer is another there are none"


def test_no_candidates_at_all() -> None:
    ids, probabilities = lay_candidates([(0, 1, [3], {"teacher_ids": None, "teacher_candidates": None})], (1, 3))
    assert ids.shape == (1, 3, 1) and probabilities.abs().sum() == 0
    losses = torch.tensor([[0.5, 1.5, 2.5]])
    assert torch.equal(with_divergence(losses, torch.randn(1, 3, 6), ids, probabilities, 0.7), losses)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_divergence_against_a_computation_by_hand(share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    losses = logits.logsumexp(-1) - logits[:, :, 4]
    ids, probabilities = torch.zeros(2, 3, 2, dtype=torch.long), torch.zeros(2, 3, 2, dtype=torch.float64)
    ids[0, 1], probabilities[0, 1] = torch.tensor([4, 2]), torch.tensor([0.8, 0.2])
    ids[1, 2], probabilities[1, 2] = torch.tensor([4, 0]), torch.tensor([1.0, 0.0])  # one candidate, filled up
    found = with_divergence(losses, logits, ids, probabilities, share)
    expected = losses.detach().clone()
    for row, place, teacher in ((0, 1, {4: 0.8, 2: 0.2}), (1, 2, {4: 1.0})):
        student = logits.detach()[row, place].exp() / logits.detach()[row, place].exp().sum()
        kl = sum(p * (torch.tensor(p).log() - student[token].log()) for token, p in teacher.items())
        expected[row, place] = (1 - share) * expected[row, place] + share * kl
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-7)
    found.sum().backward()
    gradient = logits.grad
    assert gradient is not None and torch.isfinite(gradient).all() and gradient[0, 1].abs().min() > 0
