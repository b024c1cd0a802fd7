"""Which students a run has, where each lies, and which one is served."""

from __future__ import annotations

import pytest

from clinical_reasoner.config.arms import ARMS
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import served_student, students_of
from clinical_reasoner.errors import UserError
from tests.unit.conftest import ROOT

VISION = "{base: org/vision, inputs: both, arms: [own], epochs: 1, learning_rate: 0.001, seeds: [3]}"
OWN = "{answers: diagnose, tasks: {diagnose: 1, direct: 0.5}}"


def config(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, ROOT / "configs/demo.yaml", overrides)


def test_a_student_for_each_base_arm_and_seed() -> None:
    found = students_of(config("student.seeds=[0, 7]", f"more_students.vision={VISION}", f"more_arms.own={OWN}"))
    assert [(one.name, one.arm_name, one.seed) for one in found] == [
        ("student", "label_only", 0),
        ("student", "label_only", 7),
        ("student", "rationale_then_label", 0),
        ("student", "rationale_then_label", 7),
        ("vision", "own", 3),
    ]
    assert [one.arm for one in found[:4:2]] == [ARMS["label_only"], ARMS["rationale_then_label"]]
    assert (found[4].settings.base, found[4].settings.inputs) == ("org/vision", "both")
    assert found[4].arm.tasks == {"diagnose": 1, "direct": 0.5}


def test_places_below_the_run_folder() -> None:
    student = students_of(config("student.seeds=[7]", "student.arms=[multi_task]"))[0]
    assert student.stage == "students/student/multi_task/7"
    assert student.model_folder == "students/student/multi_task/7/model"
    assert student.answers_stage == "students/student/multi_task/7/answers"


def test_no_two_students_share_a_place() -> None:
    found = students_of(
        config(
            "student.seeds=[0, 1]",
            f"more_arms.own={OWN}",
            f"more_students={{a: {VISION}, b: {VISION.replace('[own]', '[own, label_only]')}}}",
        )
    )
    assert len({one.stage for one in found}) == len(found) == 7


def test_the_first_seed_of_the_served_arm_is_served() -> None:
    served = served_student(config("student.seeds=[5, 2]", "serving.student_arm=label_only"))
    assert (served.name, served.arm_name, served.seed) == ("student", "label_only", 5)
    assert served_student(config()).arm_name == "rationale_then_label"


def test_no_other_student_is_served() -> None:
    other = VISION.replace("[own]", "[rationale_then_label]")
    lacking = config("student.arms=[label_only, multi_task]", f"more_students.vision={other}")
    message = r"serving.student_arm='rationale_then_label' is none of student.arms \(label_only, multi_task\)"
    with pytest.raises(UserError, match=message):
        served_student(lacking)
