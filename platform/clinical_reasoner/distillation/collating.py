"""Batches of examples: pictures read, diagnosis tokens found, and every token's weight in the loss.

Shapes: B examples, L tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.distillation.bases import read_picture
from clinical_reasoner.distillation.teacher_tokens import lay_candidates
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.answers import TextOfToken, option_place
from clinical_reasoner.llm.prompting import render_answer
from clinical_reasoner.records import Ask
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

Example = dict[str, Any]
IGNORED = -100
"""Label of a token that is no part of an answer."""


class DiagnosisTokenError(UserError):
    """An answer whose diagnosis is not among the tokens that are learnt. Holds no text of a patient."""


@dataclass
class TokenTexts:
    """Where the diagnosis stands among the tokens of an answer."""

    tokenizer: Any

    def __post_init__(self) -> None:
        self._texts = TextOfToken(self.tokenizer)

    def read(self, ids: Sequence[int]) -> list[tuple[str, dict[str, float]]]:
        """As `option_place` takes it; no candidates."""
        return [(self._texts[token], {}) for token in ids]

    def diagnosis_place(self, ids: Sequence[int], ask: Ask, task: DiagnosisTask) -> int | None:
        """Index of the token with the option letter; None for an ask without a diagnosis. Raises DiagnosisTokenError
        where the letter is missing."""
        kind = ASK_KINDS[ask]
        if not kind.gives_label:
            return None
        place = option_place(self.read(ids), task, label_first=kind.label_first)
        if place is None:
            raise DiagnosisTokenError(
                f"an answer to {ask!r} of {len(ids)} tokens holds no option letter: it was cut, or the tokenizer joins "
                "the letter with other words"
            )
        return place


def option_tokens(texts: TokenTexts, ask: Ask, task: DiagnosisTask) -> list[int]:
    """Token of each label's option letter, in the order of the task's labels. Raises DiagnosisTokenError where two
    labels share one, as when the tokenizer splits within the bracket."""
    found = []
    for name in task.label_names:
        ids = texts.tokenizer(render_answer(ask, "Reasons.", name, task), add_special_tokens=False)["input_ids"]
        place = texts.diagnosis_place(ids, ask, task)
        found.append(-1 if place is None else ids[place])
    if len(set(found)) < len(found):
        raise DiagnosisTokenError(f"the tokenizer has no token of its own for each option of ask {ask!r}: {found}")
    return found


@dataclass
class AnswerCollator:
    """TRL's collator, and beside its batch what the loss of an arm needs."""

    inner: Callable[[list[Example]], Any]
    texts: TokenTexts
    task: DiagnosisTask
    arm: ArmConfig
    run: RunFolder

    def __call__(self, examples: list[Example]) -> Any:
        """Adds `token_weights` (B, L), and with soft labels `option_places` (B, L) bool and `soft_labels` (B, K), a row
        of zeros where the teacher gave none; with token-level distillation `candidate_ids` and `candidate_mass`
        (B, L, C). Raises DiagnosisTokenError."""
        batch = self.inner([self._with_pictures(example) for example in examples])
        labels = batch["labels"]
        weights, places = torch.zeros(labels.shape), torch.zeros(labels.shape, dtype=torch.bool)
        found = [list(answers_in(row)) for row in labels.tolist()]
        # Joined texts come as one row, and it is not known which is whose; all their tasks have one weight.
        joined = {"weight": next(iter(self.arm.tasks.values()))}
        for row, example in enumerate(examples if len(found) == len(examples) else [joined] * len(found)):
            for start, ids in found[row]:
                weights[row, start : start + len(ids)] = float(example.get("weight", joined["weight"]))
                place = self._place(ids, example.get("ask"))
                if place is not None:
                    weights[row, start + place] *= self.arm.diagnosis_weight
                    places[row, start + place] = True
        batch["token_weights"] = weights
        if self.arm.soft_labels:
            batch["option_places"] = places
            none = [0.0] * len(self.task.labels)
            batch["soft_labels"] = torch.tensor([example["soft_label"] or none for example in examples])
        if self.arm.token_distillation:
            answers = [(row, *one, examples[row]) for row in range(len(examples)) for one in found[row]]
            batch["candidate_ids"], batch["candidate_mass"] = lay_candidates(answers, tuple(labels.shape))
        return batch

    def _place(self, ids: list[int], ask: Ask | None) -> int | None:
        if ask is not None:
            return self.texts.diagnosis_place(ids, ask, self.task)
        asks = [one for one in self.arm.tasks if ASK_KINDS[one].gives_label]
        place = option_place(self.texts.read(ids), self.task, label_first=ASK_KINDS[asks[0]].label_first)
        if place is None and len(asks) == len(self.arm.tasks):
            raise DiagnosisTokenError(f"a joined answer of {len(ids)} tokens holds no option letter: it was cut")
        return place

    def _with_pictures(self, example: Example) -> Example:
        if not example.get("images"):
            return dict(example)
        return {**example, "images": [read_picture(self.run, name) for name in example["images"]]}


def answers_in(labels: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Start and tokens of each answer of a row: runs of labels that count; several where texts were joined."""
    start: int | None = None
    for place, label in enumerate([*labels, IGNORED]):
        if label != IGNORED and start is None:
            start = place
        elif label == IGNORED and start is not None:
            yield start, list(labels[start:place])
            start = None
