"""Token-level distillation: the teacher's distribution at each token of its answer, laid upon the student's answer.

Shapes: B examples, L tokens, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import log_softmax

HEAD = 8
"""First tokens of the teacher's answer by which it is found in the student's."""


def aligned(answer: Sequence[int], teacher: Sequence[int]) -> tuple[int, int]:
    """Where the teacher's answer begins in the student's, and for how many tokens both are the same; 0 for none."""
    head = list(teacher[:HEAD])
    if not head:
        return 0, 0
    start = next((at for at in range(len(answer) - len(head) + 1) if list(answer[at : at + len(head)]) == head), None)
    if start is None:
        return 0, 0
    pairs = zip(answer[start:], teacher, strict=False)
    same = next((number for number, (one, other) in enumerate(pairs) if one != other), None)
    return start, min(len(answer) - start, len(teacher)) if same is None else same


def lay_candidates(
    answers: Sequence[tuple[int, int, list[int], dict[str, Any]]], shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, L, C) and probabilities (B, L, C) of the teacher's candidates; those of a token add up to 1, and to 0
    where there are none. `answers`: row, place of its first token, tokens, and example with `teacher_ids` and
    `teacher_candidates`."""
    most = max((len(place["ids"]) for *_, one in answers for place in one.get("teacher_candidates") or ()), default=1)
    ids, mass = torch.zeros((*shape, most), dtype=torch.long), torch.zeros((*shape, most))
    for row, first, tokens, example in answers:
        start, length = aligned(tokens, example.get("teacher_ids") or ())
        for offset in range(length):
            candidates = example["teacher_candidates"][offset]
            count, place = len(candidates["ids"]), first + start + offset
            ids[row, place, :count] = torch.tensor(candidates["ids"])
            mass[row, place, :count] = torch.tensor(candidates["logprobs"]).exp()
    return ids, mass / mass.sum(-1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)


def with_divergence(
    losses: torch.Tensor, logits: torch.Tensor, ids: torch.Tensor, probabilities: torch.Tensor, share: float
) -> torch.Tensor:
    """(B, L) token losses: where the teacher has candidates (1 - share) x loss + share x KL(teacher || student) over
    them (Hinton et al. 2015, arXiv:1503.02531, at temperature 1).

    losses (B, L), logits (B, L, V), ids and probabilities (B, L, C) as of `lay_candidates`.
    """
    known = probabilities.sum(-1) > 0
    teacher = probabilities[known]
    student = log_softmax(logits[known], dim=-1).gather(-1, ids[known])
    divergence = (torch.xlogy(teacher, teacher) - teacher * student).sum(-1)
    return losses.masked_scatter(known, (1 - share) * losses[known] + share * divergence)
