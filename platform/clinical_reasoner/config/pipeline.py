"""The configuration of a whole run, one file for every job, and of its part that needs no model."""

from __future__ import annotations

from math import ceil
from typing import Annotated

from pydantic import Field, model_validator

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


OTHER_MODELS = ("teacher", "student")
"""Names in the column `model` of `predictions` that mean something else."""
TeacherName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class PipelineConfig(CohortRunConfig):
    teacher: TeacherConfig
    more_teachers: dict[TeacherName, TeacherConfig] = {}
    """Further teachers, by the name that they have in the tables' column `model`; they are asked the same, one after
    the other, and take no setting from `teacher`. Students learn from `teacher`, whose name is `teacher.model`, and
    which the endpoint serves."""
    rationales: RationalesConfig = RationalesConfig()
    student: StudentConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _students_have_rationales(self) -> PipelineConfig:
        reasoned = [ask for ask, kind in ASK_KINDS.items() if kind.gives_rationale]
        if "rationale_then_label" in self.student.arms and not any(
            "train" in self.rationales.splits_of(ask) for ask in reasoned
        ):
            raise ValueError(
                "student.arms has 'rationale_then_label', but no ask of rationales.asks that gives a rationale "
                f"({', '.join(reasoned)}) has 'train': there would be none to learn from"
            )
        return self

    @model_validator(mode="after")
    def _cnn_has_cubes(self) -> PipelineConfig:
        if "cnn_3d" not in self.evaluation.baselines:
            return self
        side, smallest = self.imaging.cube_side, self.evaluation.cnn_3d.smallest_side
        if not self.imaging.cubes:
            raise ValueError("evaluation.baselines has 'cnn_3d', which learns from cubes; set imaging.cubes=true")
        if side < smallest:
            raise ValueError(
                f"imaging.cube_side={side} is too small for the {len(self.evaluation.cnn_3d.blocks)} blocks of "
                f"evaluation.cnn_3d; set imaging.cube_side={smallest} or more, or fewer blocks"
            )
        return self

    @model_validator(mode="after")
    def _teachers_have_names_of_their_own(self) -> PipelineConfig:
        taken = sorted(self.more_teachers.keys() & {self.teacher.model, *OTHER_MODELS})
        if taken:
            raise ValueError(f"more_teachers: {taken[0]!r} is the name of another model in the tables; take another")
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> PipelineConfig:
        several = [ask for ask in ASK_KINDS if self.rationales.samples_of(ask) > 1]
        for place, teacher in self._placed_teachers():
            if several and teacher.sampling.temperature == 0:
                raise ValueError(
                    f"rationales.samples asks for {self.rationales.samples_of(several[0])} samples of {several[0]!r}, "
                    f"but {place}.sampling.temperature is 0, where all samples are the same; set it above 0, e.g. "
                    f"{place}.sampling.temperature=0.7, or rationales.samples=1"
                )
        return self

    @model_validator(mode="after")
    def _length_fits(self) -> PipelineConfig:
        words = self.rationales.most_words()
        needed = ceil(words * TOKENS_PER_WORD)
        for place, teacher in self._placed_teachers():
            if needed > teacher.sampling.max_tokens:
                raise ValueError(
                    f"rationales.length={self.rationales.length} asks for up to {words} words, about {needed} tokens, "
                    f"but {place}.sampling.max_tokens={teacher.sampling.max_tokens} would cut them; set "
                    f"{place}.sampling.max_tokens={needed} or more"
                )
        return self

    def _placed_teachers(self) -> list[tuple[str, TeacherConfig]]:
        more = [(f"more_teachers.{name}", teacher) for name, teacher in self.more_teachers.items()]
        return [("teacher", self.teacher), *more]

    def teachers(self) -> dict[str, TeacherConfig]:
        """All teachers by their name in the tables, the first one first."""
        return {self.teacher.model: self.teacher, **self.more_teachers}
