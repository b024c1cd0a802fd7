"""The students of a run: one for each base, arm and seed, and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.errors import UserError


@dataclass(frozen=True)
class Student:
    """One student of a run."""

    name: str
    """In the tables and in the report: `student`, or a name of `more_students`."""
    arm_name: str
    seed: int
    settings: StudentConfig
    arm: ArmConfig

    @property
    def stage(self) -> str:
        """Stage that trains it, and its folder below the run folder."""
        return f"students/{self.name}/{self.arm_name}/{self.seed}"

    @property
    def model_folder(self) -> str:
        """Where below the run folder its finished model lies."""
        return f"{self.stage}/model"

    @property
    def answers_stage(self) -> str:
        """Stage in which it answers about the visits that it has not learnt from."""
        return f"{self.stage}/answers"


def students_of(config: PipelineConfig) -> list[Student]:
    """All students, those of one base and arm adjacent."""
    return [
        Student(name, arm, seed, settings, config.arm(arm))
        for name, settings in config.students().items()
        for arm in settings.arms
        for seed in settings.seeds
    ]


def served_student(config: PipelineConfig) -> Student:
    """The one behind the endpoint. Raises UserError when `serving.student_arm` is not trained."""
    wanted = ("student", config.serving.student_arm)
    found = [student for student in students_of(config) if (student.name, student.arm_name) == wanted]
    if not found:
        arms = ", ".join(config.student.arms)
        raise UserError(f"serving.student_arm={config.serving.student_arm!r} is none of student.arms ({arms})")
    return found[0]
