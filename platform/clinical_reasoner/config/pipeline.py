"""The configuration of a whole run: one file for every job."""

from __future__ import annotations

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.cohort import CohortConfig, EvidenceConfig
from clinical_reasoner.config.evaluation import EvaluationConfig
from clinical_reasoner.config.run import RunConfig, TaskConfig
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.config.teacher import RationalesConfig, TeacherConfig


class PipelineConfig(StrictConfig):
    run: RunConfig
    task: TaskConfig
    cohort: CohortConfig
    evidence: EvidenceConfig = EvidenceConfig()
    teacher: TeacherConfig
    rationales: RationalesConfig = RationalesConfig()
    student: StudentConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
