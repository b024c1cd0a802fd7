"""The benchmark of the checks: figures for every flag, from a config as the job reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.benchmarks.checks import FLAGS, benchmark_checks
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.rationales import LengthBounds

ROOT = Path(__file__).parents[3]


def test_figures_of_every_flag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    told = benchmark_checks(load_config(PipelineConfig, ROOT / "configs/demo.yaml", []))
    assert told["benchmark"] == "checks" and told["texts"] >= 150 and told["held_out"] >= 50
    assert tuple(told["precision"]) == tuple(told["recall"]) == FLAGS
    assert min(*told["precision"].values(), *told["recall"].values()) >= 0.95
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in FLAGS)


def test_bounds_that_no_rationale_fits() -> None:
    with pytest.raises(ValueError, match="max_words 5 is below min_words 9"):
        LengthBounds(min_words=9, max_words=5)
