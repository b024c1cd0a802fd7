"""Answers of a student that is being trained: the validation split, shared among the workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from sklearn.metrics import f1_score

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.distillation.bases import chat_text, read_picture
from clinical_reasoner.llm.answers import Answer, parse_answer
from clinical_reasoner.records import Ask
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

BATCH = 32
LABEL_FIRST_TOKENS = 48
"""Of an answer that begins with the label: enough for it and some words of the rationale."""


@dataclass(frozen=True)
class ValidationAsker:
    """Greedy answers about some visits, and their macro-F1."""

    rows: list[dict[str, Any]]
    """`label`, `prompt` and `picture` of each visit."""
    ask: Ask
    task: DiagnosisTask
    processor: Any
    """Tokenizer, or processor of a vision-language model."""
    max_tokens: int
    """Longest answer."""
    run: RunFolder
    rank: int
    workers: int
    sharded: bool
    """Whether every worker must run each forward pass, as it holds a part of the weights."""
    answers: Callable[[Any, list[dict[str, Any]], int], list[str]] | None = None
    """Model, rows and most tokens of an answer -> texts, for a model that is no decoder."""

    def __call__(self, model: Any) -> float:
        """Macro-F1, the same on all workers; an answer that cannot be read is wrong."""
        own = self.rows if self.sharded else self.rows[self.rank :: self.workers]
        plain = model if self.sharded else getattr(model, "module", model)
        pairs: list[tuple[str, str]] = []
        for start in range(0, len(own), BATCH):
            batch = own[start : start + BATCH]
            texts = self.answers(plain, batch, self._limit) if self.answers else self._answers(plain, batch)
            for row, text in zip(batch, texts, strict=True):
                answer = parse_answer(text, self.ask, self.task)
                label = answer.label if isinstance(answer, Answer) else None
                pairs.append((row["label"], label or "no answer"))
        if self.workers > 1 and not self.sharded:
            pairs = gather_object(pairs)
        recorded, predicted = zip(*pairs, strict=True)
        names = list(self.task.label_names)
        return float(f1_score(recorded, predicted, labels=names, average="macro", zero_division=0))

    @property
    def _limit(self) -> int:
        return LABEL_FIRST_TOKENS if ASK_KINDS[self.ask].label_first else self.max_tokens

    @torch.no_grad()
    def _answers(self, model: Any, batch: list[dict[str, Any]]) -> list[str]:
        pictures = [[read_picture(self.run, row["picture"])] for row in batch if row["picture"]]
        texts = [
            chat_text(self.processor, row["prompt"], pictures[place][0] if pictures else None, generation=True)
            for place, row in enumerate(batch)
        ]
        inputs = self.processor(
            text=texts,
            **({"images": pictures} if pictures else {}),
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        inputs.pop("token_type_ids", None)
        outputs = model.generate(
            **inputs.to(next(model.parameters()).device),
            max_new_tokens=self._limit,
            do_sample=False,
            synced_gpus=self.sharded,
        )
        answers: list[str] = self.processor.batch_decode(
            outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers
