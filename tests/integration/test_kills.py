"""A rationale stage of 500 patients that loses its engine, its node or its driver in the middle: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import RunFolder
from tests.integration.pipeline_run import ROOT, descendants, environment, generated_rows

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1200)]
PATIENTS = 500
LIMIT_S = 500
ASKS = {"rationalize": (1, ("train",)), "direct": (2, ("train", "validation", "test"))}
"""Ask -> samples and splits."""
SETTINGS = (
    f"cohort.patients={PATIENTS}",
    "cohort.phantoms=null",
    "imaging.slices=false",
    "evidence.fewest_controls=15",
    "rationales.asks={rationalize: [train], diagnose: [], direct: [train, validation, test]}",
    "rationales.samples={direct: 2}",
    "rationales.rows_per_block=20",
    "teacher.sampling.temperature=0.7",
    # Few rows at a time, so that there is a middle.
    "teacher.engine.max_num_seqs=24",
    # More than the head of the cluster has, so that the engine is on the other node.
    "teacher.engine.cpus=3",
)


class Run:
    """The stage in a run folder, started as often as it takes."""

    def __init__(self, path: Path, address: str | None = None) -> None:
        self.path = path
        self._log = path.parent / "output.log"
        self._environment = environment() | ({"RAY_ADDRESS": address} if address else {})
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml"]
        with self._log.open("a") as stream:
            return subprocess.Popen(
                [*command, f"run.path={self.path}", *SETTINGS],
                cwd=ROOT,
                env=self._environment,
                stdout=stream,
                stderr=stream,
            )

    def await_middle(self) -> int:
        """Rows that are safe once there are some."""
        deadline = time.monotonic() + LIMIT_S
        while not (rows := generated_rows(self.path)):
            assert self.process.poll() is None, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.2)
        return rows

    def finish(self) -> int:
        """Wait for its end, and start it once more where that was no good one; how often it was started."""
        try:
            if self.process.wait(LIMIT_S) == 0:
                return 1
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"it hangs: {self._said()}")
        self.process = self._start()
        assert self.process.wait(LIMIT_S) == 0, self._said()
        return 2

    def _said(self) -> str:
        return self._log.read_text()[-4000:]

    def assert_complete(self) -> None:
        """Every patient x ask x sample exactly once, in the order of the cohort, with an answer."""
        run = RunFolder(str(self.path))
        findings = run.read_table("findings").to_pylist()
        rows = run.read_table("rationales", RATIONALES).to_pylist()
        expected = [
            (visit["patient_id"], ask, sample)
            for visit in findings
            for ask, (samples, splits) in ASKS.items()
            if visit["split"] in splits
            for sample in range(samples)
        ]
        assert len(findings) == PATIENTS
        assert [(row["patient_id"], row["ask"], row["sample"]) for row in rows] == expected
        reasons = Counter(row["reject_reason"] for row in rows if row["text"] == "")
        assert not reasons, "rows without an answer"
        direct = [row for row in rows if row["ask"] == "direct"]
        assert len({row["seed"] for row in direct}) == len(direct), "samples share a seed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_killed_driver(path: Path) -> None:
    run = Run(path)
    safe = run.await_middle()
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    assert run.finish() == 2
    assert safe > 0
    run.assert_complete()


def test_killed_vllm_worker(path: Path) -> None:
    run = Run(path)
    try:
        run.await_middle()
        workers = [one for one in descendants(run.process.pid) if one.name().startswith("VLLM::")]
        assert workers, "no process of vLLM"
        workers[-1].kill()
        run.finish()
        run.assert_complete()
    finally:
        run.process.kill()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that has no room for the engine; nodes come and go."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "platform"), *sys.path[:1]]))
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_killed_node(path: Path, cluster: Any) -> None:
    node = cluster.add_node(num_cpus=6)
    run = Run(path, cluster.address)
    try:
        run.await_middle()
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=6)
        run.finish()
        run.assert_complete()
    finally:
        run.process.kill()
