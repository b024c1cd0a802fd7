"""Students and arms of a whole run: what does not go together is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.config.arms import ARMS
from clinical_reasoner.config.loading import ConfigError, load_config
from clinical_reasoner.config.pipeline import PipelineConfig

CONFIGS = Path(__file__).parents[3] / "configs"
SOFT = "more_arms.own={answers: direct, tasks: {direct: 1}, soft_labels: 0.5}"
TOKENS = "more_arms.own={answers: diagnose, tasks: {diagnose: 1}, token_distillation: 0.5}"
KEPT = "rationales.token_candidates=5"
UNEQUAL = "more_arms.own={answers: direct, tasks: {direct: 1, explain: 2}}"
OWN = ["student.arms=[own]", "student.epochs=1"]
NO_RATIONALES = "rationales.asks={rationalize: [test], diagnose: [test], direct: [train, test]}"
HINTED = "rationales.asks={rationalize: [train], diagnose: [test], direct: [test]}"
PACKED = "student.training.batching=packing"


def config(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, CONFIGS / "demo.yaml", overrides)


def other(arms: str = "[label_only]", more: str = "") -> str:
    """Settings of a further student."""
    return f"{{base: org/other, arms: {arms}, epochs: 1, learning_rate: 0.001{more}}}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["student.arms=[label_only, own]", "student.epochs=1"],
            "student.arms: no arm 'own'; there are label_only, rationale_then_label, label_then_rationale, multi_task",
        ),
        ([f"more_students.big={other('[own]')}"], "more_students.big.arms: no arm 'own'"),
        (
            [NO_RATIONALES],
            "student.arms has 'rationale_then_label', but no ask .* that gives a rationale .* has 'train'",
        ),
        (
            [NO_RATIONALES, "student.arms=[multi_task]", "student.epochs=1"],
            "student.arms has 'multi_task', but no ask .* that gives a rationale",
        ),
        (
            [NO_RATIONALES, "student.arms=[label_only]", f"more_students.big={other('[label_then_rationale]')}"],
            "more_students.big.arms has 'label_then_rationale', but no ask",
        ),
        ([HINTED, SOFT, *OWN], "student.arms has 'own' with soft_labels, but no ask .* that gives probabilities"),
        ([SOFT, *OWN, PACKED], "student.training.batching='packing' keeps neither weights .* arm 'own' has"),
        ([UNEQUAL, *OWN, PACKED], "student.training.batching='packing' keeps neither weights .* arm 'own' has"),
        (
            [SOFT, f"more_students.big={other('[own]', ', training: {batching: packing}')}"],
            "more_students.big.training.batching='packing' keeps neither weights",
        ),
        ([TOKENS, *OWN], "student.arms has 'own' with token_distillation, which needs rationales.token_candidates"),
        ([TOKENS, *OWN, KEPT, "teacher.base_url=http://127.0.0.1:1/v1"], "a teacher in an engine of the cluster"),
        ([TOKENS, *OWN, KEPT, "teacher.deployment={name: engine}"], "a teacher in an engine of the cluster"),
        ([TOKENS, *OWN, KEPT, PACKED], "keeps neither weights nor the teacher's probabilities .* arm 'own' has"),
        (["rationales.token_candidates=21"], "rationales.token_candidates"),
        (["more_arms.multi_task={answers: direct, tasks: {direct: 1}}"], "more_arms.multi_task is the name of an arm"),
        (["more_arms.Own={answers: direct, tasks: {direct: 1}}"], "more_arms.Own"),
        (["more_arms.own={answers: direct, tasks: {diagnose: 1}}"], "answers='direct' is none of the tasks diagnose"),
        (["teacher.model=first", f"more_students.first={other()}"], "'first' is the name of another model"),
        (["more_teachers.big={model: m}", f"more_students.big={other()}"], "'big' is the name of another model"),
        ([f"more_students.student={other()}"], "more_students: 'student' is the name of another model"),
        ([f"more_students.teacher={other()}"], "more_students: 'teacher' is the name of another model"),
        ([f"more_students.baseline={other()}"], "more_students: 'baseline' is the name of another model"),
        ([f"more_students.org/big={other()}"], "more_students.org/big"),
        (["serving.student_arm=multi_task"], "serving.student_arm='multi_task' is none of student.arms"),
        (
            ["serving.student_arm=multi_task", f"more_students.big={other('[multi_task]')}"],
            "serving.student_arm='multi_task' is none of student.arms",
        ),
    ],
)
def test_what_cannot_be_trained_or_served(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [NO_RATIONALES, "student.arms=[label_only]"],
        [NO_RATIONALES, SOFT, *OWN],
        [HINTED],
        [SOFT, *OWN],  # `diagnose` of the demo gives probabilities about the training split
        [TOKENS, *OWN, KEPT],
        [HINTED, SOFT],  # nobody is trained so
        [PACKED],
        [PACKED, "student.arms=[multi_task]", "student.epochs=1"],
        [UNEQUAL, *OWN],
        ["serving.student_arm=own", UNEQUAL, *OWN],
        # Who trains and evaluates alone needs no endpoint.
        ["student.arms=[label_only]"],
    ],
)
def test_what_can_be_trained_and_served(overrides: list[str]) -> None:
    config(*overrides)


def test_arms_and_students_by_their_names() -> None:
    made = config(SOFT, f"more_students={{big-vlm: {other('[own, label_only]', ', inputs: image')}}}")
    assert made.arm("own").soft_labels == 0.5
    assert made.arm("multi_task") == ARMS["multi_task"]
    assert list(made.students()) == ["student", "big-vlm"]
    assert made.students()["student"] == made.student
    assert made.students()["big-vlm"].inputs == "image"


def test_packing_takes_the_weight_of_a_diagnosis() -> None:
    """It is found in the joined texts."""
    weighted = "more_arms.own={answers: diagnose, tasks: {diagnose: 1}, diagnosis_weight: 20}"
    assert config(weighted, *OWN, PACKED).arm("own").diagnosis_weight == 20
