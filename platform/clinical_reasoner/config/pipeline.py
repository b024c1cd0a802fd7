"""The configuration of a whole run, one file for every job, and of its part that needs no model."""

from __future__ import annotations

from pydantic import model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.cohort import CohortConfig, EvidenceConfig
from clinical_reasoner.config.evaluation import EvaluationConfig
from clinical_reasoner.config.imaging import ImagingConfig
from clinical_reasoner.config.run import RunConfig, TaskConfig
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.config.teacher import RationalesConfig, TeacherConfig


class CohortRunConfig(StrictConfig):
    """From study files to findings: what the stages before any model need, and all that a file for them has."""

    run: RunConfig
    task: TaskConfig
    cohort: CohortConfig
    imaging: ImagingConfig = ImagingConfig()
    evidence: EvidenceConfig = EvidenceConfig()


class PipelineConfig(CohortRunConfig):
    teacher: TeacherConfig
    rationales: RationalesConfig = RationalesConfig()
    student: StudentConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _students_have_rationales(self) -> PipelineConfig:
        if "rationale_then_label" in self.student.arms and "train" not in self.rationales.asks.rationalize:
            raise ValueError(
                "student.arms has 'rationale_then_label', but rationales.asks.rationalize lacks 'train': "
                "there would be no rationale to learn from"
            )
        return self
