"""The model card of a reference model says what it was trained on, and what chance would give."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import ReferenceConfig
from clinical_reasoner.reference.card import AskFigures, model_card

CONFIGS = Path(__file__).parents[3] / "configs" / "reference"


def card(config: ReferenceConfig, labels: int) -> str:
    figures = [AskFigures("diagnose", 0, 300, 1.0, 0.75, 4000, 0.01)]
    return model_card(config, 1_900_000, [4.0, 0.1], 30.0, figures, 0.76, labels)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_card_lists_the_text_and_its_seeds(role: str) -> None:
    config = load_config(ReferenceConfig, CONFIGS / f"{role}.yaml")
    text = card(config, labels=3)
    assert f"Text seeds of the phases: {', '.join(map(str, config.text_seeds))}." in text
    assert f"unseen synthetic patients (seed {config.seed + 1}" in text
    assert "restatements" in text and "grades drawn anew" in text
    assert "Bayes ceiling on the same patients: 0.760. Chance: 0.333." in text


def test_card_of_another_task_and_of_asks_alone() -> None:
    config = load_config(ReferenceConfig, CONFIGS / "student.yaml")
    text = card(config.model_copy(update={"phases": config.phases[1:]}), labels=2)
    assert "Chance: 0.500." in text
    assert "Phases of `restatements`" not in text
