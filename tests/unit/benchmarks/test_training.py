"""The benchmark of training: its examples, what is learnt of them, the losses, and how figures come from runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from clinical_reasoner.benchmarks.training import OURS, PLAIN, TWO, Runs, check_same, figures, table_of
from clinical_reasoner.benchmarks.training_data import (
    KINDS,
    Patients,
    SetName,
    configured_patients,
    learnt_tokens,
    make_set,
    tokenized,
)
from clinical_reasoner.benchmarks.training_runs import SHARED, Clock, Trained, held_out_loss
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.bases import load_processor
from clinical_reasoner.distillation.collating import IGNORED
from clinical_reasoner.llm.answers import Answer, parse_answer

ROOT = Path(__file__).parents[3]
BASE = str(ROOT / "platform/clinical_reasoner/reference/models/student")


@pytest.fixture
def patients(monkeypatch: pytest.MonkeyPatch) -> Patients:
    monkeypatch.chdir(ROOT)
    return configured_patients(load_config(PipelineConfig, ROOT / "configs/demo.yaml", []))


@pytest.mark.parametrize(
    ("name", "shortest", "longest"), [("mixed", (200, 300), (780, 900)), ("uniform",) + 2 * ((200, 300),)]
)
def test_lengths_of_a_set(
    patients: Patients, name: SetName, shortest: tuple[int, int], longest: tuple[int, int]
) -> None:
    table = make_set(patients, name, 0, 40, load_processor(BASE, pictures=False))
    lengths = table["length"].to_pylist()
    assert shortest[0] <= min(lengths) <= shortest[1] and longest[0] <= max(lengths) <= longest[1]
    rows = table.to_pylist()
    assert {(row["ask"], len(row["prompt"]) // 2 - 1) for row in rows} == set(KINDS[name])
    for row in rows:
        answer = parse_answer(row["completion"][0]["content"], row["ask"], patients.task)
        assert isinstance(answer, Answer) and answer.label == row["label"]


def test_sets_are_the_same_again_and_share_no_patient(patients: Patients) -> None:
    processor = load_processor(BASE, pictures=False)
    first, again, later = (make_set(patients, "mixed", start, 5, processor) for start in (0, 0, 5))
    assert first.equals(again) and not set(first["patient_id"].to_pylist()) & set(later["patient_id"].to_pylist())


def test_only_the_answer_is_learnt(patients: Patients) -> None:
    processor = load_processor(BASE, pictures=False)
    table = make_set(patients, "mixed", 0, 6, processor)
    found = tokenized(table.to_pylist(), processor)
    assert [len(one["input_ids"]) for one in found] == table["length"].to_pylist()
    for row, one in zip(table.to_pylist(), found, strict=True):
        learnt = [token for token in one["labels"] if token != IGNORED]
        assert one["labels"][-len(learnt) :] == learnt == one["input_ids"][-len(learnt) :]
        text = processor.decode(learnt, skip_special_tokens=True)
        assert text.strip() == row["completion"][0]["content"]
    assert learnt_tokens([one["labels"] for one in found]) == sum(
        label != IGNORED for one in found for label in one["labels"]
    )


class Even(torch.nn.Module):
    """Each of 4 tokens as likely as the others."""

    device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(logits=torch.zeros((*input_ids.shape, 4)))


def test_held_out_loss_is_that_of_a_token() -> None:
    rows = [
        {"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3]},
        {"input_ids": [1, 2, 3, 0], "labels": [IGNORED] * 3 + [0]},
    ]
    assert held_out_loss(Even(), rows) == pytest.approx(float(torch.log(torch.tensor(4.0))))


def test_clock_runs_from_the_first_epoch_to_the_last_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = iter([10.0, 13.0, 20.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock, args = Clock(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    for event in ("on_epoch_begin", "on_step_end", "on_epoch_begin", "on_step_end"):
        getattr(clock, event)(args, TrainerState(), TrainerControl())
    assert clock.seconds == 10.0


def run(seconds: float, loss: float = 0.5, threads: int = 1) -> Trained:
    return Trained(seconds, seconds / 2, 100, loss, threads, dict.fromkeys(SHARED, "same"))


@pytest.fixture
def mixed() -> Runs:
    return [(PLAIN, run(30)), (OURS, run(10, 0.4)), (TWO, run(8)), (OURS, run(10, 0.6)), (PLAIN, run(10))]


def test_rates_are_of_all_examples_over_all_seconds(mixed: Runs) -> None:
    told = figures({"mixed": mixed, "uniform": [(PLAIN, run(5)), (OURS, run(4))]}, 40)
    assert told["examples_per_s"]["mixed"] == {PLAIN: 2.0, OURS: 4.0, TWO: 5.0}
    assert (told["ratio"], told["ratio_uniform"], told["scaling_1_to_2"]) == (2.0, 1.25, 1.25)
    assert told["cpu_ratio"] == {"mixed": 2.0, "uniform": 1.25}
    assert told["loss"]["mixed"] == {PLAIN: 0.5, OURS: 0.5, TWO: 0.5}
    assert told["loss_differences"] == {"mixed": [-0.1, 0.1], "uniform": [0.0]}


def test_table_has_a_line_for_each_kind(mixed: Runs) -> None:
    lines = table_of({"mixed": mixed}, 40).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1


def test_runs_that_cannot_be_compared_are_refused(mixed: Runs) -> None:
    check_same(mixed)
    with pytest.raises(RuntimeError, match="tokens that are learnt differ"):
        check_same([*mixed, (OURS, replace(mixed[0][1], learnt_tokens=99))])
    other = replace(mixed[0][1], arguments={**mixed[0][1].arguments, "learning_rate": "1"})
    with pytest.raises(RuntimeError, match="learning_rate"):
        check_same([*mixed, (OURS, other)])
    check_same([*mixed, (TWO, other)])
    with pytest.raises(RuntimeError, match="threads 2 and 1"):
        check_same([*mixed, (OURS, run(1, threads=2))])
