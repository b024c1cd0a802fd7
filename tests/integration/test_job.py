"""A real Ray cluster and a job submitted to it as the README does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import RunFolder
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
RAY = str(Path(sys.executable).with_name("ray"))
START_LIMIT_S = 120


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def submitter() -> Iterator[dict[str, str]]:
    """Environment of a shell in which a cluster was started, with its address."""
    shell = {**environment(), "RAY_AUTH_MODE": "token", "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}"}
    subprocess.run([RAY, "get-auth-token", "--generate"], env=shell, check=True, capture_output=True)
    port, dashboard = free_port(), free_port()
    options = [f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=8"]
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", *options]
    cluster = subprocess.Popen(command, env=shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while socket.socket().connect_ex(("127.0.0.1", dashboard)):
            assert cluster.poll() is None and time.monotonic() < deadline, "no dashboard"
            time.sleep(0.5)
        yield {**shell, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        cluster.send_signal(signal.SIGTERM)
        cluster.wait(timeout=60)


def submit(shell: dict[str, str], *job: str) -> subprocess.CompletedProcess[str]:
    options = ["--working-dir", ".", "--runtime-env", "configs/runtime-env.yaml"]
    command = [RAY, "job", "submit", *options, "--", "python", *job]
    return subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False)


def test_submitted_job_asks_the_teacher_and_keeps_its_rows(submitter: dict[str, str], tmp_path: Path) -> None:
    overrides = [
        f"run.path={tmp_path / 'run'}",
        "cohort.patients=20",
        "student.arms=[label_only]",
        "rationales.asks={rationalize: [], diagnose: [], direct: [test]}",
    ]
    done = submit(submitter, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", *overrides)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = RunFolder(str(tmp_path / "run"))
    test = {row["patient_id"] for row in run.read_table("findings").to_pylist() if row["split"] == "test"}
    assert {row["patient_id"] for row in run.read_table("rationales", RATIONALES).to_pylist()} == test != set()
    described = [row["description"].splitlines()[0] for row in run.read_table("findings").to_pylist()]
    assert not [text for text in described if text in done.stdout + done.stderr], "a patient is in the job's log"


def test_submitted_job_with_a_relative_run_path_is_refused_at_once(submitter: dict[str, str]) -> None:
    done = submit(submitter, "jobs/run_pipeline.py", "--config", "configs/demo.yaml")
    assert done.returncode != 0
    assert "run.path 'runs/demo' is relative" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout
