"""The configuration of a whole run, one file for every job, and of its part that needs no model."""

from __future__ import annotations

from math import ceil

from pydantic import model_validator

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.cohort import CohortConfig, EvidenceConfig
from clinical_reasoner.config.evaluation import EvaluationConfig
from clinical_reasoner.config.imaging import ImagingConfig
from clinical_reasoner.config.rationales import TOKENS_PER_WORD, RationalesConfig
from clinical_reasoner.config.run import RunConfig, TaskConfig
from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.config.teacher import TeacherConfig


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
        told = [ask for ask, kind in ASK_KINDS.items() if kind.told_label]
        if "rationale_then_label" in self.student.arms and not any(
            "train" in self.rationales.splits_of(ask) for ask in told
        ):
            raise ValueError(
                f"student.arms has 'rationale_then_label', but rationales.asks.{' and '.join(told)} lacks 'train': "
                "there would be no rationale to learn from"
            )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> PipelineConfig:
        several = [ask for ask in ASK_KINDS if self.rationales.samples_of(ask) > 1]
        if several and self.teacher.sampling.temperature == 0:
            raise ValueError(
                f"rationales.samples asks for {self.rationales.samples_of(several[0])} samples of {several[0]!r}, but "
                "teacher.sampling.temperature is 0, where all samples are the same; set it above 0, e.g. "
                "teacher.sampling.temperature=0.7, or rationales.samples=1"
            )
        return self

    @model_validator(mode="after")
    def _length_fits(self) -> PipelineConfig:
        words, room = self.rationales.most_words(), self.teacher.sampling.max_tokens
        needed = ceil(words * TOKENS_PER_WORD)
        if needed > room:
            raise ValueError(
                f"rationales.length={self.rationales.length} asks for up to {words} words, about {needed} tokens, but "
                f"teacher.sampling.max_tokens={room} would cut them; set teacher.sampling.max_tokens={needed} or more"
            )
        return self
