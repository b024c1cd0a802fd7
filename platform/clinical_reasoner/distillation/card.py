"""The model card of a student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinical_reasoner import __version__
from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import Student

READS = {"text": "the description", "image": "a picture of the MRI", "both": "the description and a picture of the MRI"}


def student_card(config: PipelineConfig, student: Student, details: Mapping[str, Any], figures: str = "") -> str:
    """Markdown: base, teacher, arm, data, figures, intended use and limits. `details` are those of the stage that
    trained it; `figures` are Markdown lines, once it has answered about the test split."""
    cohort = "synthetic" if config.cohort.kind == "synthetic" else config.cohort.name
    settings, arm = student.settings, student.arm
    tasks = ", ".join(f"{ask} (weight {weight:g})" for ask, weight in arm.tasks.items())
    sources = ", ".join(arm.rationales) if arm.needs_rationales else "none"
    rows = {
        "base": f"`{settings.base}`",
        "family": settings.family.replace("_", "-"),
        "reads": READS[settings.inputs],
        "answers": "diagnosis and rationale" if ASK_KINDS[arm.answers].gives_rationale else "diagnosis",
        "arm": f"`{student.arm_name}`: {tasks}",
        "teacher of the rationales": f"`{config.teacher.model}`" if arm.needs_rationales else "none",
        "rationales": sources,
        "weight of the diagnosis token": f"{arm.diagnosis_weight:g}",
        "share of soft labels": f"{arm.soft_labels:g}",
        "adapters": "none" if settings.lora is None else f"LoRA, rank {settings.lora.rank}, merged",
        "task": f"`{config.task.file}`",
        "cohort": cohort,
        **{name: str(value) for name, value in details.items()},
        "seed": str(student.seed),
        "epochs, learning rate": f"{settings.epochs_of(student.arm_name):g}, "
        f"{settings.learning_rate_of(student.arm_name):g}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# Student `{student.name}`, arm `{student.arm_name}`

Distilled by clinical-reasoner {__version__}. Research use only; never for decisions about people.

| | |
|---|---|
{table}

## Figures

{figures or "Not asked about the test split yet: `jobs/evaluate_models.py` does so and writes them here."}

## Intended use and limits

For research on how rationales are learnt. Not a medical device: nobody may be diagnosed or treated by it.
It has seen one cohort and one form of description; its rationale is generated text and may be wrong, also where the
diagnosis is right. A label from a synthetic cohort says nothing about real patients.
"""
