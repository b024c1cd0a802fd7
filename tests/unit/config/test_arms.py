"""Arms: what may be trained, and what each of those that are always there is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from clinical_reasoner.asks import ASK_KINDS, Ask
from clinical_reasoner.config.arms import ARM_TITLES, ARMS, ArmConfig

GOOD: dict[str, Any] = {"answers": "direct", "tasks": {"direct": 1.0, "explain": 0.5}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answers": "diagnose"}, "answers='diagnose' is none of the tasks direct, explain"),
        ({"answers": "explain"}, "answers='explain' names no diagnosis"),
        ({"tasks": {"direct": 1, "rationalize": 1}}, "task 'rationalize' tells the diagnosis in its prompt"),
        ({"answers": "rationalize", "tasks": {"rationalize": 1}}, "names no diagnosis"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": {"direct": 0}}, "tasks.direct"),
        ({"tasks": {"direct": 1, "guess": 1}}, "tasks.guess"),
        ({"diagnosis_weight": 0.9}, "diagnosis_weight"),
        ({"soft_labels": 1.01}, "soft_labels"),
        ({"soft_labels": -0.01}, "soft_labels"),
        ({"token_distillation": 1.01}, "token_distillation"),
        ({"token_distillation": -0.01}, "token_distillation"),
        ({"rationales": ()}, "rationales"),
        ({"rationales": ("reasoned", "guessed")}, "rationales.1"),
        ({"weight": 2}, "weight"),
    ],
)
def test_arm_that_cannot_be(changed: dict[str, Any], message: str) -> None:
    ArmConfig.model_validate(GOOD)
    with pytest.raises(ValidationError, match=message):
        ArmConfig.model_validate(GOOD | changed)


@pytest.mark.parametrize("changed", [{"diagnosis_weight": 1}, {"soft_labels": 0}, {"soft_labels": 1}])
def test_bounds_are_allowed(changed: dict[str, Any]) -> None:
    ArmConfig.model_validate(GOOD | changed)


@pytest.mark.parametrize(
    ("tasks", "needs"),
    [
        ({"direct": 1}, False),
        ({"direct": 1, "explain": 1}, True),
        ({"direct": 1, "diagnose_zero_shot": 1}, True),
        ({"direct": 1, "diagnose_label_first": 1}, True),
    ],
)
def test_arm_needs_rationales_where_a_task_writes_one(tasks: dict[Ask, float], needs: bool) -> None:
    assert ArmConfig(answers="direct", tasks=tasks).needs_rationales == needs


@pytest.mark.parametrize(
    ("name", "answers", "tasks"),
    [
        ("label_only", "direct", {"direct": 1.0}),
        ("rationale_then_label", "diagnose", {"diagnose": 1.0}),
        ("label_then_rationale", "diagnose_label_first", {"diagnose_label_first": 1.0}),
        ("multi_task", "direct", {"direct": 1.0, "explain": 1.0}),
    ],
)
def test_arms_that_are_always_there(name: str, answers: Ask, tasks: dict[Ask, float]) -> None:
    assert ARMS[name] == ArmConfig(answers=answers, tasks=tasks)
    assert (ARMS[name].diagnosis_weight, ARMS[name].soft_labels, ARMS[name].token_distillation) == (1, 0, 0), (
        "plain cross-entropy"
    )
    assert ARMS[name].rationales == ("reasoned", "hinted")
    assert ARM_TITLES.keys() == ARMS.keys() and len(ARMS) == 4


def test_order_of_the_answer_is_that_of_the_name() -> None:
    assert ASK_KINDS[ARMS["label_then_rationale"].answers].label_first
    assert not ASK_KINDS[ARMS["rationale_then_label"].answers].label_first
