"""The benchmark of generation up to its engines: every stage before the rationales is made, as in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.benchmarks import generation
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig, PipelineConfig
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.runs import Manifest, RunFolder

ROOT = Path(__file__).parents[3]


def test_prompts_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without phantoms, so that nothing is measured under Ray."""
    chats: list[list[Message]] = []
    reads: list[str] = []

    def find(config: CohortRunConfig, run: RunFolder) -> Manifest:
        manifest = make_findings(config, run)
        reads.extend(manifest.inputs)
        return manifest

    def plain_rate(model: object, asked: list[list[Message]]) -> float:
        chats.extend(asked)
        return 100.0

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(generation, "make_findings", find)
    monkeypatch.setattr(generation, "_plain_rate", plain_rate)
    monkeypatch.setattr(generation, "_stage_rate", lambda *_: 99.0)
    overrides = ["cohort.phantoms=null", "cohort.patients=20"]
    told = generation.benchmark_generation(load_config(PipelineConfig, ROOT / "configs/demo.yaml", overrides))
    assert reads == ["patients", "measures"]
    assert told == {
        "benchmark": "generation",
        "ratio": 0.99,
        "stage_tokens_per_s": 99,
        "plain_tokens_per_s": [100, 100],
        "prompts": 20,
    }
    assert len(chats) == 2 * 20
    assert all("hippocampal atrophy" in chat[-1]["content"] for chat in chats)
