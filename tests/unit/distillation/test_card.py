"""The model card of a student: what it is, what it learnt from, and that nobody may be diagnosed by it."""

from __future__ import annotations

import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.card import student_card
from clinical_reasoner.distillation.students import students_of
from tests.unit.conftest import ROOT


def card(*overrides: str, figures: str = "") -> tuple[str, dict[str, str]]:
    """Text, and its table."""
    settings = load_config(PipelineConfig, ROOT / "configs/demo.yaml", ["teacher.model=org/teacher", *overrides])
    details = {"training visits": 290, "steps": 218, "macro-F1 on validation": 0.812}
    text = student_card(settings, students_of(settings)[0], details, figures)
    cells = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count("|") == 3
    ]
    return text, {cell[0]: cell[1] for cell in cells if len(cell) == 2}


def test_label_only_owes_nothing_to_a_teacher() -> None:
    text, rows = card("student.arms=[label_only]", "student.base=org/base", "student.seeds=[4]")
    assert text.startswith("# Student `student`, arm `label_only`")
    assert "org/teacher" not in text
    assert rows == {
        "base": "`org/base`",
        "reads": "the description",
        "answers": "diagnosis",
        "arm": "`label_only`: direct (weight 1)",
        "teacher of the rationales": "none",
        "rationales": "none",
        "weight of the diagnosis token": "1",
        "share of soft labels": "0",
        "adapters": "none",
        "task": "`configs/tasks/alzheimers.yaml`",
        "cohort": "synthetic",
        "training visits": "290",
        "steps": "218",
        "macro-F1 on validation": "0.812",
        "seed": "4",
        "epochs, learning rate": "6, 0.001",
    }


def test_every_choice_is_told() -> None:
    arm = (
        "{answers: diagnose, tasks: {diagnose: 1, direct: 0.25}, diagnosis_weight: 20, soft_labels: 0.5, "
        "rationales: [reasoned, unselected]}"
    )
    _, rows = card(
        "student.arms=[own]", f"more_arms.own={arm}", "student.epochs=3", "student.inputs=both", "student.lora.rank=8"
    )
    assert (
        rows.items()
        >= {
            "reads": "the description and a picture of the MRI",
            "answers": "diagnosis and rationale",
            "arm": "`own`: diagnose (weight 1), direct (weight 0.25)",
            "teacher of the rationales": "`org/teacher`",
            "rationales": "reasoned, unselected",
            "weight of the diagnosis token": "20",
            "share of soft labels": "0.5",
            "adapters": "LoRA, rank 8, merged",
            "epochs, learning rate": "3, 0.001",
        }.items()
    )


@pytest.mark.parametrize("figures", ["", "| accuracy | 0.812 [0.7, 0.9] |"])
def test_figures_once_there_are_some_and_limits_always(figures: str) -> None:
    text, _ = card("student.arms=[label_only]", "student.inputs=image", figures=figures)
    assert "| reads | a picture of the MRI |" in text
    assert "Research use only" in text and "Not a medical device" in text
    assert ("Not asked about the test split yet" in text) == (figures == "")
    assert figures in text
