"""A student: what cannot be trained, and on which settings its weights depend."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from clinical_reasoner.config.student import RESOURCES, LoraConfig, StudentConfig, TrainingConfig, ValidationConfig

BOTH = {"label_only": 2.0, "rationale_then_label": 3.0}


def student(**changed: Any) -> StudentConfig:
    return StudentConfig(**{"base": "model", "epochs": BOTH, "learning_rate": BOTH} | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": BOTH | {"label_only": 0.0}}, "epochs.*label_only"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": BOTH | {"rationale_then_label": -1e-3}}, "learning_rate.*rationale_then_label"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"arms": ("label_only", "label_only")}, "'label_only' stands there twice"),
        ({"arms": ()}, "arms"),
        ({"arms": ("Label only",), "epochs": 1, "learning_rate": 1}, "arms.0"),
        ({"seeds": (3, 1, 3)}, "3 stands there twice"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (-1,)}, "seeds.0"),
        (
            {"epochs": {"label_only": 2.0}},
            r"epochs has no entry for arm 'rationale_then_label'; add student.epochs.rationale_then_label=",
        ),
        ({"learning_rate": {"label_only": 2.0}}, "learning_rate has no entry for arm 'rationale_then_label'"),
        ({"max_length": 2049}, "max_length 2049 is above engine.max_model_len 2048"),
        ({"max_length": 63}, "max_length"),
        ({"inputs": "sound"}, "inputs"),
        ({"batch_size": 15}, "batch_size 15 cannot be shared evenly among 2 workers"),
        ({"batch_size": 16, "training": {"workers": 3}}, "batch_size 16 cannot be shared evenly among 3 workers"),
        (
            {"batch_size": 16, "training": {"workers": 4, "min_workers": 2}},
            "batch_size 16 cannot be shared evenly among 3 workers",
        ),
        ({"training": {"workers": 2, "min_workers": 3}}, "min_workers 3 is above workers 2"),
        ({"training": {"min_workers": 0}}, "training.min_workers"),
        ({"training": {"workers": 0}}, "training.workers"),
        (
            {"training": {"batching": "packing"}, "inputs": "image"},
            "joins texts alone, and inputs='image' has pictures",
        ),
        ({"training": {"batching": "packing"}, "inputs": "both"}, "joins texts alone, and inputs='both' has pictures"),
        ({"training": {"precision": "float16"}}, "training.precision"),
        ({"training": {"sharding": "fsdp"}}, "training.sharding"),
        ({"training": {"log_to": ("stdout",)}}, "training.log_to.0"),
        ({"validation": {"patience": 0}}, "validation.patience"),
        ({"validation": {"evaluations": -1}}, "validation.evaluations"),
        ({"validation": {"visits": 0}}, "validation.visits"),
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"lora": {"dropout": 1.0}}, "lora.dropout"),
        ({"workers": 2}, "workers"),
    ],
)
def test_student_that_cannot_be_trained(changed: dict[str, Any], message: str) -> None:
    assert student().arms == ("label_only", "rationale_then_label")
    with pytest.raises(ValidationError, match=message):
        student(**changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 12, "training": {"workers": 4, "min_workers": 2}},
        {"batch_size": 1, "training": {"workers": 1}},
        {"training": {"batching": "packing"}},
        {"max_length": 2048},
        {"seeds": (0, 1)},
        {"epochs": 1.5, "arms": ("multi_task",), "learning_rate": {"multi_task": 1e-3, "label_only": 1e-3}},
    ],
)
def test_student_that_can_be_trained(changed: dict[str, Any]) -> None:
    student(**changed)


def test_schedule_of_all_arms_or_of_each() -> None:
    each, same = student(), student(epochs=4, learning_rate=1e-4)
    assert [each.epochs_of(arm) for arm in each.arms] == [each.learning_rate_of(arm) for arm in each.arms] == [2, 3]
    assert [same.epochs_of(arm) for arm in same.arms] == [4, 4]
    assert [same.learning_rate_of(arm) for arm in same.arms] == [1e-4, 1e-4]


OTHER_RESOURCES: dict[str, Any] = {
    "workers": 4,
    "min_workers": 2,
    "gpus_per_worker": 1,
    "sharding": "fsdp2",
    "gradient_checkpointing": True,
    "max_failures": 9,
    "log_to": ("mlflow",),
}


def test_weights_do_not_depend_on_what_a_training_runs_on() -> None:
    assert OTHER_RESOURCES.keys() == set(RESOURCES) <= set(TrainingConfig.model_fields)
    plain = student(batch_size=12).identity("label_only")
    assert student(batch_size=12, training=OTHER_RESOURCES).identity("label_only") == plain
    assert plain["training"].keys() == {"precision", "batching"}


@pytest.mark.parametrize(
    "changed",
    [
        # Base, arm and seed have places of their own in the identity of a stage.
        {"base": "another"},
        {"seeds": (1, 2)},
        {"arms": ("rationale_then_label", "label_only")},
        {"micro_batch_size": 2},
        {"engine": {"max_num_seqs": 2}},
        {"sampling": {"max_tokens": 64}},
        {"epochs": {"label_only": 2.0, "rationale_then_label": 9.0}},
        {"epochs": 2.0, "learning_rate": 2.0},
    ],
)
def test_weights_do_not_depend_on_how_else_a_student_is_used(changed: dict[str, Any]) -> None:
    assert student(**changed).identity("label_only") == student().identity("label_only")


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": BOTH | {"label_only": 5.0}},
        {"learning_rate": BOTH | {"label_only": 5.0}},
        {"inputs": "both"},
        {"batch_size": 8},
        {"max_length": 512},
        {"lora": LoraConfig()},
        {"validation": ValidationConfig(evaluations=1)},
        {"validation": ValidationConfig(patience=1)},
        {"validation": ValidationConfig(visits=1)},
        {"training": {"precision": "bfloat16"}},
        {"training": {"batching": "padded"}},
    ],
)
def test_weights_depend_on_what_is_learnt_and_how(changed: dict[str, Any]) -> None:
    assert student(**changed).identity("label_only") != student().identity("label_only")
    assert student(lora=LoraConfig(rank=8)).identity("label_only") != student(lora=LoraConfig()).identity("label_only")
