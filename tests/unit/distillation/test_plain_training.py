"""Students that are no decoders: their batches and losses, with and without adapters, on small models of their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTConfig

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.student import Family, StudentConfig
from clinical_reasoner.distillation.collating import AnswerCollator, TokenTexts
from clinical_reasoner.distillation.export import merged_model
from clinical_reasoner.distillation.families import encode_examples, student_processor
from clinical_reasoner.distillation.plain_training import AnswerPadder, PlainAnswers, plain_trainer
from clinical_reasoner.llm.prompting import render_answer, render_messages
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask
from tests.bases import small_bert, small_t5

SOFT = [0.7, 0.2, 0.1]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, str]:
    folder = tmp_path_factory.mktemp("bases")
    return {"encoder_decoder": small_t5(folder), "encoder": small_bert(folder)}


def settings(base: str, family: Family, **changed: Any) -> StudentConfig:
    return StudentConfig(base=base, family=family, arms=("label_only",), epochs=1, learning_rate=0.01, **changed)


def examples(task: DiagnosisTask, ask: Any = "direct", weight: float = 1.0) -> list[dict[str, Any]]:
    """One for each label, and soft labels for all but the last."""
    return [
        {
            "ask": ask,
            "weight": weight,
            "soft_label": SOFT if name != task.label_names[-1] else None,
            "length": 100,
            "label": name,
            "prompt": render_messages(ask, f"The patient is {70 + number} years old.", task),
            "completion": [{"role": "assistant", "content": render_answer(ask, "Reasons. " * number, name, task)}],
        }
        for number, name in enumerate(task.label_names, start=1)
    ]


def trainer_of(
    student: StudentConfig,
    arm: ArmConfig,
    task: DiagnosisTask,
    rows: list[dict[str, Any]],
    folder: Path,
    steps: int = 3,
) -> Any:
    tokenizer = student_processor(student.base, student)
    return plain_trainer(
        student.base,
        student,
        arm,
        task,
        tokenizer,
        RunFolder(str(folder)),
        rows,
        macro_f1=None,
        patience=None,
        step_examples=len(rows),
        args=SFTConfig(
            output_dir=str(folder / "trained"),
            max_steps=steps,
            learning_rate=student.learning_rate_of("label_only"),
            per_device_train_batch_size=len(rows),
            remove_unused_columns=False,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            logging_steps=1,
        ),
    )


def loss_of(trainer: Any) -> tuple[float, Any]:
    """Of one batch of all examples, and the batch."""
    data: Any = trainer.train_dataset
    batch = trainer.data_collator(list(data))
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, dict(batch))), batch


def test_weights_stand_where_the_decoder_has_its_labels(bases: dict[Family, str], task: DiagnosisTask) -> None:
    arm = ArmConfig(answers="diagnose", tasks={"diagnose": 2}, diagnosis_weight=20)
    student = settings(bases["encoder_decoder"], "encoder_decoder")
    tokenizer = student_processor(student.base, student)
    rows = encode_examples(examples(task, "diagnose", weight=2), "encoder_decoder", tokenizer, task)
    batch = AnswerCollator(AnswerPadder(tokenizer), TokenTexts(tokenizer), task, arm, RunFolder("unused"))(rows)
    labels, weights = batch["labels"], batch["token_weights"]
    assert labels.shape == weights.shape
    assert weights[labels == -100].unique().tolist() == [0]
    for row, option in enumerate(task.options):
        heavy = (weights[row] == 40).nonzero().flatten().tolist()
        assert [tokenizer.decode([labels[row, place]]).strip(" (") for place in heavy] == [option]
        learnt = labels[row][labels[row] != -100]
        assert learnt[-1] == tokenizer.eos_token_id, "it must learn to stop"
        assert int((weights[row] == 2).sum()) == len(learnt) - 1


def test_loss_without_weights_is_the_models_own(bases: dict[Family, str], task: DiagnosisTask, tmp_path: Path) -> None:
    for family, base in bases.items():
        arm = ArmConfig(answers="direct", tasks={"direct": 1})
        trainer = trainer_of(settings(base, family), arm, task, examples(task), tmp_path)
        loss, batch = loss_of(trainer)
        read = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        with torch.no_grad():
            assert loss == pytest.approx(float(trainer.model(**read).loss), rel=1e-5), family


def test_classifier_learns_from_soft_labels(bases: dict[Family, str], task: DiagnosisTask, tmp_path: Path) -> None:
    arm = ArmConfig(answers="direct", tasks={"direct": 1}, soft_labels=0.25)
    trainer = trainer_of(settings(bases["encoder"], "encoder"), arm, task, examples(task), tmp_path)
    loss, batch = loss_of(trainer)
    with torch.no_grad():
        found = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logprobs, soft = found.logits.log_softmax(-1), torch.tensor(SOFT)
    hard = -logprobs.diagonal()
    divergence = (soft * (soft.log() - logprobs[:-1])).sum(-1)
    expected = [*(0.75 * hard[:-1] + 0.25 * divergence), hard[-1]]
    assert loss == pytest.approx(float(sum(expected)) / len(expected), rel=1e-5)


@pytest.mark.parametrize("family", ["encoder_decoder", "encoder"])
def test_adapters_are_trained_and_merged(
    bases: dict[Family, str], family: Family, task: DiagnosisTask, tmp_path: Path
) -> None:
    student = settings(bases[family], family, lora={"rank": 4})
    arm = ArmConfig(answers="direct", tasks={"direct": 1}, soft_labels=0.5)
    trainer = trainer_of(student, arm, task, examples(task), tmp_path, steps=30)
    before, batch = loss_of(trainer)
    trainer.train()
    after, _ = loss_of(trainer)
    assert after < 0.9 * before
    trainer.save_model(str(tmp_path / "adapters"))
    tokenizer = student_processor(student.base, student)
    merged = merged_model(str(tmp_path / "adapters"), student, task, tokenizer).float()
    read = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        trained, exported = (model(**read).logits.softmax(-1) for model in (trainer.model, merged))
    assert (trained - exported).abs().max() < 0.05  # the export is in bfloat16


def test_answers_while_learning_are_texts(bases: dict[Family, str], task: DiagnosisTask, tmp_path: Path) -> None:
    for family, base in bases.items():
        student = settings(base, family)
        arm = ArmConfig(answers="direct", tasks={"direct": 1})
        trainer = trainer_of(student, arm, task, examples(task), tmp_path, steps=60)
        trainer.train()
        answers = PlainAnswers(student, student_processor(base, student), task)
        trainer.model.eval()
        texts = answers(trainer.model, examples(task), 40)
        assert texts == [row["completion"][0]["content"] for row in examples(task)], family
