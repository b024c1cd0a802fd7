"""What students that are no decoders cannot have."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from clinical_reasoner.config.loading import ConfigError, load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.student import StudentConfig


@pytest.mark.parametrize("family", ["encoder_decoder", "encoder"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": "both"}, "cannot have inputs='both'; take 'text'"),
        ({"training": {"batching": "packing"}}, "cannot have training.batching='packing'; take 'group_by_length'"),
        ({"training": {"sharding": "fsdp2"}}, "cannot have training.sharding='fsdp2'; take 'ddp'"),
        ({"lora": {"quantize_base": True}}, "cannot have lora.quantize_base=True; take False"),
    ],
)
def test_refused_with_what_to_take(family: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        StudentConfig.model_validate({"base": "b", "epochs": 1, "learning_rate": 1e-3, "family": family, **given})
    assert f"family={family!r} {message}" in str(error.value)


@pytest.mark.parametrize("given", [{}, {"lora": {"rank": 8}}, {"training": {"batching": "padded"}}])
def test_allowed(given: dict[str, object]) -> None:
    StudentConfig.model_validate({"base": "b", "epochs": 1, "learning_rate": 1e-3, "family": "encoder", **given})


@pytest.mark.parametrize("arm", ["rationale_then_label", "label_then_rationale", "multi_task"])
def test_classifier_writes_no_rationale(arm: str) -> None:
    options = ["student.family=encoder", f"student.arms=[{arm}]"]
    with pytest.raises(ConfigError, match=rf"arm '{arm}' has the tasks .*student\.arms=\[label_only\]"):
        load_config(PipelineConfig, "configs/demo.yaml", options)


def test_classifier_has_no_diagnosis_token() -> None:
    weighted = "more_arms={heavy: {answers: direct, tasks: {direct: 1}, diagnosis_weight: 5}}"
    options = ["student.family=encoder", "student.arms=[heavy]", "student.epochs=2", weighted]
    with pytest.raises(ConfigError, match="diagnosis_weight=5"):
        load_config(PipelineConfig, "configs/demo.yaml", options)


def test_classifier_beside_a_decoder() -> None:
    more = "more_students={bert: {base: b, family: encoder, arms: [label_only], epochs: 2, learning_rate: 0.001}}"
    config = load_config(PipelineConfig, "configs/demo.yaml", [more])
    assert {name: student.family for name, student in config.students().items()} == {
        "student": "decoder",
        "bert": "encoder",
    }
