"""Training of encoder-decoder models and classifiers: transformers' Trainer with the loss of an arm.

Shapes: B examples, L tokens of an answer (1 for a classifier), V tokens or classes, K labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForSeq2Seq

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.distillation.asked import AskedTrainer
from clinical_reasoner.distillation.bases import adapter_config
from clinical_reasoner.distillation.collating import IGNORED, AnswerCollator, Example, TokenTexts, option_tokens
from clinical_reasoner.distillation.families import ADAPTED, encode_examples, load_plain_base
from clinical_reasoner.distillation.trainer import soft_label_losses
from clinical_reasoner.llm.plain import classify, context_of, write
from clinical_reasoner.llm.prompting import plain_text
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask


class PlainTrainer(AskedTrainer):
    """Weighs tokens by `token_weights` of the batch, and mixes in soft labels where the batch has them."""

    def __init__(self, *, options: list[int], soft_share: float, **keywords: Any) -> None:
        """`options`: token or class of each label; `soft_share`: of the soft labels in the loss."""
        super().__init__(**keywords)
        self._options, self._soft_share = options, soft_share
        # The loss of a step is that of all its examples, whatever parts it is computed in.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of the weighted losses over the number of tokens, or of examples, that are learnt."""
        weights = inputs.pop("token_weights")
        places, soft = inputs.pop("option_places", None), inputs.pop("soft_labels", None)
        labels = inputs["labels"]
        # A decoder is fed with the labels, shifted by the model: its logits stand where the labels do.
        logits = model(**inputs).logits.float()
        logits = logits if logits.dim() == 3 else logits[:, None]
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
        if places is not None and soft is not None:
            losses = soft_label_losses(losses, logits, places, soft, self._options, self._soft_share)
        return self.mean_loss(losses, weights, labels, num_items_in_batch)


@dataclass
class AnswerPadder:
    """Batches of prompts and of answers, each padded; labels of padding are IGNORED."""

    tokenizer: Any

    def __call__(self, examples: list[Example]) -> Any:
        read = [{name: example[name] for name in ("input_ids", "labels")} for example in examples]
        return DataCollatorForSeq2Seq(self.tokenizer, label_pad_token_id=IGNORED)(read)


@dataclass
class ClassCollator:
    """Batches of prompts and of classes, as AnswerCollator makes them of answers: each class is an answer of one token,
    which holds the diagnosis."""

    tokenizer: Any
    labels: int
    soft: bool

    def __call__(self, examples: list[Example]) -> Any:
        """`labels` and `token_weights` (B, 1), and with soft labels `option_places` (B, 1) and `soft_labels` (B, K)."""
        batch = self.tokenizer.pad({"input_ids": [one["input_ids"] for one in examples]}, return_tensors="pt")
        batch["labels"] = torch.tensor([one["labels"] for one in examples])
        batch["token_weights"] = torch.tensor([[float(one["weight"])] for one in examples])
        if self.soft:
            none = [0.0] * self.labels
            batch["option_places"] = torch.ones_like(batch["labels"], dtype=torch.bool)
            batch["soft_labels"] = torch.tensor([one["soft_label"] or none for one in examples])
        return batch


def plain_trainer(
    base: str,
    settings: StudentConfig,
    arm: ArmConfig,
    task: DiagnosisTask,
    tokenizer: Any,
    run: RunFolder,
    rows: list[Example],
    **keywords: Any,
) -> PlainTrainer:
    """The trainer of an encoder-decoder model or a classifier on rows of EXAMPLES; `keywords` are those of
    AskedTrainer."""
    classes, soft, texts = settings.family == "encoder", arm.soft_labels > 0, TokenTexts(tokenizer)
    collator: Callable[[list[Example]], Any] = (
        ClassCollator(tokenizer, len(task.labels), soft)
        if classes
        else AnswerCollator(AnswerPadder(tokenizer), texts, task, arm, run)
    )
    letters = option_tokens(texts, arm.answers, task) if soft and not classes else []
    model = load_plain_base(settings, base, task, tokenizer)
    if settings.lora is not None:
        from peft import get_peft_model

        model = get_peft_model(model, adapter_config(settings.lora, ADAPTED[settings.family]))
    return PlainTrainer(
        options=list(range(len(task.labels))) if classes else letters,
        soft_share=arm.soft_labels,
        model=model,
        train_dataset=Dataset.from_list(encode_examples(rows, settings.family, tokenizer, task)),
        data_collator=collator,
        processing_class=tokenizer,
        **keywords,
    )


@dataclass(frozen=True)
class PlainAnswers:
    """Answers for a ValidationAsker."""

    settings: StudentConfig
    tokenizer: Any
    task: DiagnosisTask

    def __call__(self, model: Any, rows: list[Example], limit: int) -> list[str]:
        """Texts, empty for a prompt that is too long. `limit`: most tokens of an answer."""
        prompts = [plain_text(row["prompt"]) for row in rows]
        context = min(self.settings.engine.max_model_len, context_of(model.config, self.tokenizer))
        if self.settings.family == "encoder":
            found = classify(model, self.tokenizer, prompts, context, self.task)
        else:
            found = write(model, self.tokenizer, prompts, context, limit)
        return [generation.text for generation in found]
