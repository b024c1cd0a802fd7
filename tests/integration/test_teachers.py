"""One teacher, in the cluster and behind vLLM's own server: the same questions get the same answers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import RunFolder
from tests.integration.endpoint_run import free_port
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]
PATIENTS = 200
START_LIMIT_S = 300
SERVED = "reference-teacher"
SETTINGS = (
    f"cohort.patients={PATIENTS}",
    "cohort.phantoms=null",
    "imaging.slices=false",
    "evidence.fewest_controls=15",
    "rationales.asks={rationalize: [], diagnose: [train, validation, test], direct: [test]}",
    "student.arms=[label_only]",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `vllm serve` with the reference teacher."""
    port = free_port()
    model = ROOT / "platform/clinical_reasoner/reference/models/teacher"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", SERVED, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", "2048", "--enforce-eager"]
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path_factory.mktemp("server") / "output.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment() | quiet, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not _is_up(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def answers(path: Path, *overrides: str) -> list[dict[str, Any]]:
    command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", f"run.path={path}"]
    done = subprocess.run(
        [*command, *SETTINGS, *overrides], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows: list[dict[str, Any]] = RunFolder(str(path)).read_table("rationales", RATIONALES).to_pylist()
    return rows


def test_engine_and_endpoint_give_the_same_diagnoses(server: str, tmp_path: Path) -> None:
    inside = answers(tmp_path / "engine")
    behind = answers(tmp_path / "endpoint", f"teacher.base_url={server}", f"teacher.model={SERVED}")
    key = ("patient_id", "ask", "label", "seed")
    assert [[row[name] for name in key] for row in inside] == [[row[name] for name in key] for row in behind]
    assert {row["model"] for row in behind} == {SERVED}
    pairs = [pair for pair in zip(inside, behind, strict=True) if pair[0]["ask"] == "diagnose"]
    same = sum(one["predicted"] == other["predicted"] for one, other in pairs)
    assert len(pairs) == PATIENTS
    assert same >= 0.99 * PATIENTS, f"{same} of {PATIENTS}"
    assert sum(row["predicted"] is not None for row in behind) >= 0.97 * len(behind)
    for one, other in pairs:
        if one["text"] == other["text"]:
            assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-3)
            assert (other["prompt_tokens"], other["output_tokens"]) == (one["prompt_tokens"], one["output_tokens"])


def test_prompt_longer_than_the_context_is_a_row_with_its_reason(server: str, tmp_path: Path) -> None:
    """More exemplars than fit: these asks are rejected, and the others answered."""
    longer = (f"teacher.base_url={server}", f"teacher.model={SERVED}", "cohort.patients=20")
    rows = answers(tmp_path / "long", *longer, "teacher.sampling.max_tokens=1500")
    by_ask = {ask: {row["reject_reason"] for row in rows if row["ask"] == ask} for ask in ("diagnose", "direct")}
    assert by_ask["diagnose"] == {"engine: prompt longer than the context"}
    assert not any((reason or "").startswith("engine") for reason in by_ask["direct"])
