"""Stage `rationales`: what it is made again for, and what it reports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.teacher import EndpointConfig, TeacherConfig
from clinical_reasoner.rationales.counts import Counts
from clinical_reasoner.rationales.stage import make_rationales, teacher_renderer
from clinical_reasoner.records import FINDINGS, Ask, RationaleRow
from clinical_reasoner.runs import Manifest, RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import DiagnosisTask, TaskError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with finished findings about no one, so that no engine is needed."""
    monkeypatch.chdir(ROOT)
    run = RunFolder(str(tmp_path))

    def make() -> Rows:
        run.write_table("findings", FINDINGS.empty_table())
        return Rows(0, 0)

    run_stage(run, Stage("findings", {}), make)
    return run


def rationales(run: RunFolder, *overrides: str) -> Manifest:
    return make_rationales(load_config(PipelineConfig, ROOT / "configs/demo.yaml", overrides), run)


def test_smaller_engine_goes_on_with_the_same_work(run: RunFolder) -> None:
    first = rationales(run)
    smaller = ["max_num_seqs=4", "batch_size=4", "concurrent_batches=2", "kv_cache_gib=2", "replicas=2", "cpus=2"]
    assert rationales(run, *(f"teacher.engine.{setting}" for setting in smaller), "teacher.engine.gpus=1") == first


@pytest.mark.parametrize(
    "setting",
    [
        "teacher.engine.dtype=float16",
        "teacher.engine.max_model_len=999",
        "teacher.sampling.seed=99",
        "rationales.shots=2",
        "rationales.exemplar_choice=nearest",
        "rationales.exemplar_order=shuffled",
        "rationales.length=brief",
        "rationales.samples=4",
    ],
)
def test_what_changes_answers_makes_them_again(run: RunFolder, setting: str) -> None:
    warm = "teacher.sampling.temperature=0.5"
    rationales(run, warm)
    name, value = setting.split("=")
    with pytest.raises(RunError, match=rf'{re.escape(name)}: .* -> "?{value}'):
        rationales(run, warm, setting)


def test_another_ask_makes_them_again(run: RunFolder) -> None:
    rationales(run)
    with pytest.raises(RunError, match=r'rationales\.asks\.diagnose_zero_shot: \[\] -> \["test"\]'):
        rationales(run, "rationales.asks.diagnose_zero_shot=[test]")


def test_renderer_is_that_of_the_config(run: RunFolder, task: DiagnosisTask) -> None:
    settings = ["shots=2", "exemplar_choice=nearest", "exemplar_order=shuffled", "length=60"]
    overrides = [f"rationales.{setting}" for setting in settings]
    renderer = teacher_renderer(load_config(PipelineConfig, ROOT / "configs/demo.yaml", overrides), task)
    choice = renderer.exemplars
    assert (choice.shots, choice.how, choice.order, renderer.words) == (2, "nearest", "shuffled", "about 60")
    with pytest.raises(TaskError, match=r"alzheimers_exemplars\.json: 3 exemplars, but rationales\.shots=4"):
        teacher_renderer(load_config(PipelineConfig, ROOT / "configs/demo.yaml", ["rationales.shots=4"]), task)


def row(ask: Ask, **changed: Any) -> RationaleRow:
    return RationaleRow(
        **{
            "row_id": ask,
            "patient_id": "p",
            "visit_id": "v",
            "split": "test",
            "label": "AD",
            "ask": ask,
            "sample": 0,
            "model": "m",
            "prompt_version": "v1",
            "shots": 0,
            "seed": 0,
            "text": "...",
            "claims_supported": 2,
            "claims_contradicted": 1,
            "claims_not_in_evidence": 0,
            "accepted": True,
            "prompt_tokens": 9,
            "output_tokens": 5,
        }
        | changed
    )


def test_an_ask_has_the_counts_that_it_can_have() -> None:
    rows = [
        row("rationalize", rationale="r", selected="hinted"),
        row("diagnose", rationale="r", predicted="AD"),
        row("diagnose", rationale="r", predicted="MCI", model="n"),
        row("direct", predicted="AD"),
        row("direct", accepted=False, reject_reason="engine: APITimeoutError"),
        row("direct", accepted=False, reject_reason="engine: prompt longer than the context"),
    ]
    counts = Counts()
    for one in rows:
        counts.add(one.model_dump())
    priced = TeacherConfig(model="m", endpoint=EndpointConfig(prompt_price=2.0, output_price=10.0))
    told = counts.summary({"m": priced, "n": TeacherConfig(model="n")})
    claims = {"claims_supported": 2, "claims_contradicted": 1, "claims_not_in_evidence": 0}
    tokens = {"prompt_tokens": 9, "output_tokens": 5}
    assert told["asks"] == {
        "m": {
            "rationalize": {"answers": 1, "engine_errors": 0, "parsed": 1, **claims, **tokens},
            "diagnose": {"answers": 1, "engine_errors": 0, "parsed": 1, "correct": 1, **claims, **tokens},
            "direct": {
                "answers": 3,
                "engine_errors": 2,
                "parsed": 1,
                "correct": 1,
                **{name: 3 * count for name, count in tokens.items()},
            },
        },
        "n": {"diagnose": {"answers": 1, "engine_errors": 0, "parsed": 1, "correct": 0, **claims, **tokens}},
    }
    assert told["reasons"] == {
        "accepted": 4,
        "engine: APITimeoutError": 1,
        "engine: prompt longer than the context": 1,
    }
    assert told["selected"] == {"hinted": 1, "not selected": 5}
    assert told["unanswered"] == 1, "a prompt that is too long stays so"
    assert told["costs"] == {"m": round((5 * 9 * 2.0 + 5 * 5 * 10.0) / 1e6, 4)}
