"""The loss of an arm, against TRL's own and against a computation by hand; when training stops. A real small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from clinical_reasoner.config.arms import ARMS, ArmConfig
from clinical_reasoner.distillation.asked import MACRO_F1
from clinical_reasoner.distillation.collating import IGNORED, AnswerCollator, TokenTexts, option_tokens
from clinical_reasoner.distillation.failures import LossError
from clinical_reasoner.distillation.sampling import EpochSampler
from clinical_reasoner.distillation.trainer import Distiller, soft_label_losses
from clinical_reasoner.evidence.description import with_question
from clinical_reasoner.llm.prompting import render_answer, render_messages
from clinical_reasoner.records import Ask
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask
from tests.unit.conftest import ROOT

STUDENT = ROOT / "platform/clinical_reasoner/reference/models/student"
OPTIONS = [5, 2, 7]
"""Tokens of the letters, of a vocabulary of 9."""
SOFT = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


LABELS = torch.tensor([[IGNORED, 5, 1, 8], [IGNORED, IGNORED, 2, 8], [3, 7, 8, IGNORED]])
PLACES = torch.tensor([[False, True, False, False], [False, False, True, False], [False, True, False, False]])


def cross_entropies(logits: torch.Tensor) -> list[list[float]]:
    """By hand: log of the sum of exponentials less the label's own."""
    found = []
    for row in range(3):
        found.append([0.0] * 4)
        for token in range(4):
            label = int(LABELS[row, token])
            if label != IGNORED:
                values = logits[row, token].detach()
                found[-1][token] = float(values.exp().sum().log() - values[label])
    return found


def divergence(logits: torch.Tensor, soft: torch.Tensor) -> float:
    """KL(teacher || student) over the letters, by hand."""
    powers = logits[OPTIONS].detach().exp()
    student = powers / powers.sum()
    return sum(
        float(p) * (float(p.log()) - float(q.log())) for p, q in zip(soft.double(), student, strict=True) if p > 0
    )


def mixed(logits: torch.Tensor, soft: torch.Tensor, share: float) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), LABELS, reduction="none")
    return soft_label_losses(losses, logits, PLACES, soft, OPTIONS, share)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_soft_labels_against_a_computation_by_hand(logits: torch.Tensor, share: float) -> None:
    """Without a share it is cross-entropy, with all of it divergence."""
    expected = cross_entropies(logits)
    for row, token in ((0, 1), (2, 1)):
        expected[row][token] = (1 - share) * expected[row][token] + share * divergence(logits[row, token], SOFT[row])
    losses = mixed(logits, SOFT, share)
    assert losses.shape == LABELS.shape
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_a_student_of_the_teachers_opinion_has_no_loss(logits: torch.Tensor) -> None:
    agreed = logits.detach().clone()
    agreed[0, 1, OPTIONS] = SOFT[0].double().log() + 3.0
    losses = mixed(agreed, SOFT, 1.0)
    assert losses[0, 1].item() == pytest.approx(0, abs=1e-6)
    assert losses[2, 1].item() > 0


def test_a_visit_without_soft_label_has_its_diagnosis(logits: torch.Tensor) -> None:
    losses = mixed(logits, SOFT, 1.0)
    assert losses[1, 2].item() == pytest.approx(cross_entropies(logits)[1][2])
    none = mixed(logits, torch.zeros(3, 3), 1.0)
    torch.testing.assert_close(none, torch.tensor(cross_entropies(logits), dtype=torch.float64))


def test_gradients_of_soft_labels(logits: torch.Tensor) -> None:
    mixed(logits, SOFT, 1.0).sum().backward()
    gradient = logits.grad
    assert gradient is not None and torch.isfinite(gradient).all()
    student = torch.softmax(logits.detach()[0, 1, OPTIONS], dim=-1)
    torch.testing.assert_close(gradient[0, 1, OPTIONS], student - SOFT[0].double(), rtol=1e-5, atol=1e-7)
    others = [token for token in range(9) if token not in OPTIONS]
    assert gradient[0, 1, others].abs().max() == 0, "the divergence is over the letters alone"
    assert gradient[1, 2].abs().min() > 0 and gradient[0, 0].abs().max() == 0
    leaf = logits.detach().requires_grad_()
    torch.autograd.gradcheck(lambda values: mixed(values, SOFT.double(), 0.3), (leaf,))


ROWS: list[tuple[Ask, str]] = [("direct", "AD"), ("direct", "NC"), ("explain", "MCI"), ("diagnose", "AD")]


@pytest.fixture(scope="module")
def texts() -> TokenTexts:
    return TokenTexts(AutoTokenizer.from_pretrained(STUDENT))


def data(task: DiagnosisTask, **columns: list[Any]) -> Dataset:
    rows = []
    for number, (ask, label) in enumerate(ROWS):
        prompt = render_messages(ask, with_question(f"The patient has {number} siblings.", task), task)
        answer = render_answer(ask, "The score is low." * (number + 1), label, task)
        completion = [{"role": "assistant", "content": answer}]
        rows.append({"ask": ask, "prompt": prompt, "completion": completion, "length": 10 * number})
    return Dataset.from_list(
        [{**row, **{name: values[n] for name, values in columns.items()}} for n, row in enumerate(rows)]
    )


def settings(output: Path, **changed: Any) -> SFTConfig:
    return SFTConfig(
        **{
            "output_dir": str(output),
            "max_length": None,
            "completion_only_loss": True,
            "remove_unused_columns": False,
            "use_cpu": True,
            "bf16": False,
            "report_to": [],
            "disable_tqdm": True,
            "per_device_train_batch_size": 4,
            "length_column_name": "length",
        }
        | changed
    )


def distiller(
    texts: TokenTexts, task: DiagnosisTask, output: Path, arm: ArmConfig, dataset: Dataset, **changed: Any
) -> Distiller:
    own = {
        name: changed.pop(name, default)
        for name, default in {"macro_f1": None, "patience": None, "step_examples": 4}.items()
    }
    trainer = Distiller(
        arm=arm,
        options=option_tokens(texts, arm.answers, task),
        **own,
        model=AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32),
        args=settings(output, **changed),
        train_dataset=dataset,
        processing_class=texts.tokenizer,
    )
    trainer.data_collator = AnswerCollator(trainer.data_collator, texts, task, arm, RunFolder(str(output)))
    return trainer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    set_seed(0)
    yield
    torch.set_num_threads(threads)


class _AskEachStep(TrainerCallback):
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        control.should_evaluate = True
        return control


def model_of(trainer: Distiller) -> Any:
    return trainer.model


def batch_of(trainer: Distiller) -> dict[str, Any]:
    dataset: Any = trainer.train_dataset
    batch: dict[str, Any] = trainer.data_collator([dataset[number] for number in range(len(dataset))])
    return batch


EQUAL = ArmConfig(answers="direct", tasks={"direct": 1, "explain": 1, "diagnose": 1})


@pytest.mark.parametrize("items", [None, 100])
def test_where_all_weigh_the_same_the_loss_is_that_of_trl(
    texts: TokenTexts, task: DiagnosisTask, tmp_path: Path, items: int | None
) -> None:
    trainer = distiller(texts, task, tmp_path, EQUAL, data(task, weight=[1.0] * 4))
    batch = batch_of(trainer)
    plain = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    own = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=items)
    trl = SFTTrainer.compute_loss(trainer, trainer.model, plain, num_items_in_batch=items)
    torch.testing.assert_close(own, trl)
    by_hand = model_of(trainer)(**plain).logits[:, :-1]
    labels = plain["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(by_hand[labels != IGNORED], labels[labels != IGNORED], reduction="none")
    torch.testing.assert_close(own, losses.sum() / (items or len(losses)), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_trl(texts: TokenTexts, task: DiagnosisTask, tmp_path: Path) -> None:
    trainer = distiller(texts, task, tmp_path, EQUAL, data(task, weight=[1.0] * 4))
    batch = batch_of(trainer)
    gradients = []
    for compute, given in (
        (Distiller.compute_loss, dict(batch)),
        (SFTTrainer.compute_loss, {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}),
    ):
        model = model_of(trainer)
        model.zero_grad()
        compute(trainer, model, given).backward()
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].norm() > 0


def test_weights_of_tasks_and_of_the_diagnosis(texts: TokenTexts, task: DiagnosisTask, tmp_path: Path) -> None:
    arm = ArmConfig(answers="direct", tasks={"direct": 1, "explain": 1, "diagnose": 1}, diagnosis_weight=5)
    trainer = distiller(texts, task, tmp_path, arm, data(task, weight=[2.0, 1.0, 0.5, 1.0]))
    batch = batch_of(trainer)
    weights = batch["token_weights"][:, 1:]
    logits = model_of(trainer)(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    assert set(weights.unique().tolist()) == {0.0, 0.5, 1.0, 2.0, 5.0, 10.0}
    expected = (losses * weights).sum() / (labels != IGNORED).sum()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), expected, rtol=1e-4, atol=1e-5)


def test_soft_labels_change_the_loss_at_the_letter_alone(
    texts: TokenTexts, task: DiagnosisTask, tmp_path: Path
) -> None:
    soft = [[0.5, 0.4, 0.1], None, None, [0.1, 0.1, 0.8]]
    arm = EQUAL.model_copy(update={"soft_labels": 0.5})
    trainer = distiller(texts, task, tmp_path, arm, data(task, weight=[1.0] * 4, soft_label=soft))
    batch = batch_of(trainer)
    options, rest = (
        option_tokens(texts, "direct", task),
        {name: batch[name] for name in ("input_ids", "attention_mask")},
    )
    logits = model_of(trainer)(**rest).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    for row in (0, 3):
        (place,) = batch["option_places"][row, 1:].nonzero().flatten().tolist()
        given = torch.tensor(soft[row])
        kl = (given * (given.log() - logits[row, place, options].log_softmax(-1))).sum()
        losses[row, place] = 0.5 * losses[row, place] + 0.5 * kl
    expected = losses.sum() / (labels != IGNORED).sum()
    own = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
    hard = distiller(texts, task, tmp_path, EQUAL, data(task, weight=[1.0] * 4))
    assert own.item() != pytest.approx(hard.compute_loss(hard.model, batch_of(hard)).item(), rel=1e-4)


def test_tokens_of_the_teacher_change_the_loss_where_it_wrote_the_same(
    texts: TokenTexts, task: DiagnosisTask, tmp_path: Path
) -> None:
    tokenizer = texts.tokenizer
    ids = tokenizer("The score is low." * 3 + " Then it goes on in other words.", add_special_tokens=False)["input_ids"]
    same = len(tokenizer("The score is low." * 3, add_special_tokens=False)["input_ids"])
    candidates = [{"ids": [token, 7, 9], "logprobs": [-0.2, -2.0, -4.0]} for token in ids]
    arm = EQUAL.model_copy(update={"token_distillation": 0.25})
    columns = {"teacher_ids": [None, None, ids, None], "teacher_candidates": [None, None, candidates, None]}
    trainer = distiller(texts, task, tmp_path, arm, data(task, weight=[1.0] * 4, **columns))
    batch = batch_of(trainer)
    logits = model_of(trainer)(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    start = int((labels[2] != IGNORED).nonzero()[0])
    teacher = torch.tensor([-0.2, -2.0, -4.0]).softmax(-1)
    for place in range(start, start + same):
        student = logits[2, place].log_softmax(-1)[[int(labels[2, place]), 7, 9]]
        losses[2, place] = 0.75 * losses[2, place] + 0.25 * (teacher * (teacher.log() - student)).sum()
    assert same > 5 and labels[2, start + same] == tokenizer.eos_token_id, "where the teacher went on"
    expected = losses.sum() / (labels != IGNORED).sum()
    own = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_no_number_is_an_error(texts: TokenTexts, task: DiagnosisTask, tmp_path: Path) -> None:
    trainer = distiller(texts, task, tmp_path, EQUAL, data(task, weight=[1.0] * 4))
    batch = batch_of(trainer)
    model = model_of(trainer)
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(LossError, match=r"the loss of step 1 is nan; a lower student.learning_rate may help"):
        trainer.compute_loss(model, batch)


def test_training_learns_and_stops_where_answers_get_no_better(
    texts: TokenTexts, task: DiagnosisTask, tmp_path: Path
) -> None:
    scores = [0.2, 0.5, 0.5, 0.4, 0.9]
    asked: list[bool] = []

    def macro_f1(model: Any) -> float:
        asked.append(model.training)
        return scores[len(asked) - 1]

    trainer = distiller(
        texts,
        task,
        tmp_path,
        ArmConfig(answers="direct", tasks={"direct": 1, "explain": 1, "diagnose": 1}, diagnosis_weight=3),
        data(task, weight=[1.0] * 4),
        macro_f1=macro_f1,
        patience=2,
        max_steps=20,
        learning_rate=1e-3,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=1,
    )
    trainer.add_callback(_AskEachStep())
    trainer.train()
    assert asked == [False] * 4, "the fifth is not asked: two evaluations were no better than the second"
    assert trainer.state.global_step == 4
    found = [log[MACRO_F1] for log in trainer.state.log_history if MACRO_F1 in log]
    assert found == scores[:4]
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[-1] < losses[0]


def test_nobody_is_asked_where_there_is_no_validation(texts: TokenTexts, task: DiagnosisTask, tmp_path: Path) -> None:
    trainer = distiller(texts, task, tmp_path, EQUAL, data(task, weight=[1.0] * 4))
    assert trainer.evaluate() == {}


@pytest.mark.parametrize(("strategy", "grouped"), [("group_by_length", True), ("random", False)])
def test_examples_come_in_the_order_of_the_sampler(
    texts: TokenTexts, task: DiagnosisTask, tmp_path: Path, strategy: str, grouped: bool
) -> None:
    arm = ARMS["multi_task"]
    trainer = distiller(
        texts,
        task,
        tmp_path,
        arm,
        data(task, weight=[1.0, 2.0, 4.0, 8.0]),
        train_sampling_strategy=strategy,
        per_device_train_batch_size=2,
        step_examples=2,
        seed=5,
    )
    loader: Any = trainer.get_train_dataloader()
    expected = EpochSampler(4, 2, 5, [0, 10, 20, 30] if grouped else None)
    for epoch in (0, 1, 2):
        expected.set_epoch(epoch)
        loader.set_epoch(epoch)
        drawn = [row.max().item() for batch in loader for row in batch["token_weights"]]
        assert drawn == [2.0**place for place in expected], f"epoch {epoch}"
