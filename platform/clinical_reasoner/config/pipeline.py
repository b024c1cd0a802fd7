"""The configuration of a whole run, one file for every job, and of its part that needs no model."""

from __future__ import annotations

from math import ceil
from typing import Annotated

from pydantic import Field, model_validator

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.arms import ARMS, ArmConfig, ArmName
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


OTHER_MODELS = ("teacher", "student", "baseline", "ceiling")
"""Names in the column `model` of `predictions` that mean something else."""
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class PipelineConfig(CohortRunConfig):
    teacher: TeacherConfig
    more_teachers: dict[ModelName, TeacherConfig] = {}
    """Further teachers, by the name that they have in the tables' column `model`; they are asked the same, one after
    the other, and take no setting from `teacher`. Students learn from `teacher`, whose name is `teacher.model`, and
    which the endpoint serves."""
    rationales: RationalesConfig = RationalesConfig()
    student: StudentConfig
    """The student of a run; the endpoint serves one of its arms."""
    more_students: dict[ModelName, StudentConfig] = {}
    """Further students, by the name that they have in the tables and in the report; they take no setting from
    `student`. The same base with other `inputs` is another student."""
    more_arms: dict[ArmName, ArmConfig] = {}
    """Further ways to train, by name, beside the four that are always there."""
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="after")
    def _arms_can_be_trained(self) -> PipelineConfig:
        taken = sorted(self.more_arms.keys() & ARMS.keys())
        if taken:
            raise ValueError(f"more_arms.{taken[0]} is the name of an arm that is always there; take another")
        for place, student in self._placed_students():
            for name in student.arms:
                self._check_arm(place, student, name)
        return self

    def _check_arm(self, place: str, student: StudentConfig, name: str) -> None:
        if name not in {**ARMS, **self.more_arms}:
            raise ValueError(f"{place}.arms: no arm {name!r}; there are {', '.join((*ARMS, *self.more_arms))}")
        arm, asked = self.arm(name), self.rationales
        if arm.needs_rationales and not any(
            kind.gives_rationale and "train" in asked.splits_of(ask) for ask, kind in ASK_KINDS.items()
        ):
            reasoned = [ask for ask, kind in ASK_KINDS.items() if kind.gives_rationale]
            raise ValueError(
                f"{place}.arms has {name!r}, but no ask of rationales.asks that gives a rationale "
                f"({', '.join(reasoned)}) has 'train': there would be none to learn from"
            )
        if arm.soft_labels and not any(kind.arm and "train" in asked.splits_of(ask) for ask, kind in ASK_KINDS.items()):
            raise ValueError(
                f"{place}.arms has {name!r} with soft_labels, but no ask of rationales.asks that gives probabilities "
                "of labels has 'train'; add e.g. 'rationales.asks={direct: [train, test]}'"
            )
        if student.family != "decoder":
            self._check_family(place, student, arm, name)
        if arm.token_distillation and (self.teacher.base_url or self.teacher.deployment or not asked.token_candidates):
            raise ValueError(
                f"{place}.arms has {name!r} with token_distillation, which needs rationales.token_candidates of 1 or "
                "more (e.g. 5) and a teacher in an engine of the cluster (neither teacher.base_url nor "
                "teacher.deployment)"
            )
        weighted = arm.soft_labels or arm.token_distillation or len(set(arm.tasks.values())) > 1
        if student.training.batching == "packing" and weighted:
            raise ValueError(
                f"{place}.training.batching='packing' keeps neither weights nor the teacher's probabilities of its "
                f"examples, which arm {name!r} has; take 'group_by_length'"
            )

    def _check_family(self, place: str, student: StudentConfig, arm: ArmConfig, name: str) -> None:
        if arm.token_distillation:
            raise ValueError(
                f"{place}.family={student.family!r} has other tokens than its teacher, and arm {name!r} has "
                "token_distillation; take an arm without it, e.g. with soft_labels"
            )
        if student.family != "encoder":
            return
        if set(arm.tasks) != {"direct"}:
            raise ValueError(
                f"{place}.family='encoder' names the diagnosis and writes nothing: arm {name!r} has the tasks "
                f"{', '.join(arm.tasks)}; take arms whose only task is 'direct', e.g. '{place}.arms=[label_only]'"
            )
        if arm.diagnosis_weight != 1:
            raise ValueError(
                f"{place}.family='encoder' writes no tokens, but arm {name!r} has "
                f"diagnosis_weight={arm.diagnosis_weight:g}, which weighs one against others; take an arm with 1"
            )

    @model_validator(mode="after")
    def _students_have_names_of_their_own(self) -> PipelineConfig:
        names = {self.teacher.model, *self.more_teachers, *OTHER_MODELS}
        taken = sorted(self.more_students.keys() & names)
        if taken:
            raise ValueError(f"more_students: {taken[0]!r} is the name of another model in the tables; take another")
        return self

    @model_validator(mode="after")
    def _an_arm_is_served(self) -> PipelineConfig:
        if "student_arm" in self.serving.model_fields_set and self.serving.student_arm not in self.student.arms:
            raise ValueError(
                f"serving.student_arm={self.serving.student_arm!r} is none of student.arms "
                f"({', '.join(self.student.arms)})"
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

    def arm(self, name: str) -> ArmConfig:
        """An arm by its name."""
        return {**ARMS, **self.more_arms}[name]

    def students(self) -> dict[str, StudentConfig]:
        """All students by their name in the tables, the first one first."""
        return {"student": self.student, **self.more_students}

    def _placed_students(self) -> list[tuple[str, StudentConfig]]:
        more = [(f"more_students.{name}", student) for name, student in self.more_students.items()]
        return [("student", self.student), *more]

    def _placed_teachers(self) -> list[tuple[str, TeacherConfig]]:
        more = [(f"more_teachers.{name}", teacher) for name, teacher in self.more_teachers.items()]
        return [("teacher", self.teacher), *more]

    def teachers(self) -> dict[str, TeacherConfig]:
        """All teachers by their name in the tables, the first one first."""
        return {self.teacher.model: self.teacher, **self.more_teachers}
