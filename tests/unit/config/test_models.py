"""Bounds of single configuration models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clinical_reasoner.config.cohort import EvidenceConfig, TableCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import ReferenceConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.config.teacher import THROUGHPUT, EngineConfig, TeacherConfig

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("cut_points", [(-2.0, -1.0), (-1.0, -1.0), (-1.0, float("nan"))])
def test_cut_points_must_descend(cut_points: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="must descend"):
        EvidenceConfig(cut_points=cut_points)


@pytest.mark.parametrize("cut_points", [(-1.0,), (-1.0, -2.0), (0.5, -1.0, -2.5)])
def test_descending_cut_points(cut_points: tuple[float, ...]) -> None:
    assert EvidenceConfig(cut_points=cut_points).cut_points == cut_points


@pytest.mark.parametrize("name", ["synthetic", "synthetic-clinic", "Synthetic patients"])
def test_own_cohort_is_not_called_synthetic(name: str) -> None:
    with pytest.raises(ValidationError, match="must not start with 'synthetic'"):
        TableCohort(kind="table", path="patients.csv", name=name)
    assert TableCohort(kind="table", path="patients.csv", name="memory clinic").name == "memory clinic"


def student(**changed: Any) -> StudentConfig:
    both = {"label_only": 2.0, "rationale_then_label": 2.0}
    return StudentConfig(**{"base": "model", "epochs": both, "learning_rate": both} | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": {"label_only": 0.0, "rationale_then_label": 2.0}}, "epochs.label_only"),
        ({"learning_rate": {"label_only": 1e-3, "rationale_then_label": -1e-3}}, "learning_rate.rationale_then_label"),
        ({"arms": ("label_only", "label_only")}, "arm 'label_only' stands there twice"),
        ({"epochs": {"label_only": 2.0}}, "epochs has no entry for arm 'rationale_then_label'"),
    ],
)
def test_student_that_cannot_be_trained(changed: dict[str, Any], message: str) -> None:
    assert student().arms == ("label_only", "rationale_then_label")
    with pytest.raises(ValidationError, match=message):
        student(**changed)


def test_answers_do_not_depend_on_how_fast_an_engine_is() -> None:
    assert set(EngineConfig.model_fields) >= set(THROUGHPUT)
    small = EngineConfig(max_num_seqs=1, replicas=2, batch_size=1, concurrent_batches=1, gpus=1, cpus=2, kv_cache_gib=4)
    assert small.identity() == EngineConfig().identity()
    assert small.identity().keys() == {"dtype", "max_model_len", "chat_template_kwargs", "engine_kwargs"}
    teacher = TeacherConfig(model="m", engine=small)
    assert teacher.identity() == TeacherConfig(model="m").identity()
    assert teacher.identity().keys() == set(TeacherConfig.model_fields)


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "float16"},
        {"max_model_len": 1024},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"engine_kwargs": {"quantization": "fp8"}},
    ],
)
def test_answers_depend_on_the_rest_of_an_engine(changed: dict[str, Any]) -> None:
    assert EngineConfig(**changed).identity() != EngineConfig().identity()


def test_seeds_of_a_recipe_are_all_different() -> None:
    recipe = load_config(ReferenceConfig, CONFIGS / "reference/teacher.yaml", ["seed=5"])
    assert recipe.text_seeds[:3] == (5, 105, 205)
    assert len(set(recipe.text_seeds)) == len(recipe.phases)
    assert recipe.seed + 1 not in recipe.text_seeds


def test_model_card_needs_patients() -> None:
    raw = load_config(ReferenceConfig, CONFIGS / "reference/teacher.yaml").model_dump()
    with pytest.raises(ValidationError, match="evaluation_patients"):
        ReferenceConfig.model_validate(raw | {"evaluation_patients": 0})
