"""The model card of a student."""

from __future__ import annotations

from clinical_reasoner import __version__
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.student import Arm


def student_card(config: PipelineConfig, arm: Arm, examples: int) -> str:
    """Markdown: base, teacher, arm, data, intended use and limits. Figures stand in the run's report."""
    cohort = config.cohort.kind if config.cohort.kind == "synthetic" else config.cohort.name
    return f"""# Student `{arm}`

Distilled by clinical-reasoner {__version__}. Research use only; never for decisions about people.

| | |
|---|---|
| base | `{config.student.base}` |
| teacher of the rationales | `{config.teacher.model}` |
| arm | `{arm}` |
| task | `{config.task.file}` |
| cohort | {cohort} |
| training examples | {examples} |
| epochs, learning rate | {config.student.epochs[arm]}, {config.student.learning_rate[arm]} |

Metrics with intervals, beside those of the teacher and a tabular baseline, are in the run's `report/`.

Limits: it has seen one cohort and one form of description; its rationale is generated text and may be wrong; a label
from a synthetic cohort says nothing about real patients.
"""
