"""The job that reads the audit record, as a process: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import audit_time
from clinical_reasoner.serving.audit_log import open_audit_log
from tests.audit_rows import audit_row

ROOT = Path(__file__).parents[2]
NOW = audit_time(datetime.now(UTC))


def job(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/read_audit.py", "--config", "configs/demo.yaml", f"run.path={run}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "platform"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    log = open_audit_log(AuditConfig(), str(folder))
    log.append([audit_row("a", time=NOW), audit_row("b", time=NOW, key_id="other")])
    log.close()
    log = open_audit_log(AuditConfig(), str(folder))
    log.append([audit_row("open", time=NOW)])
    return folder


def test_says_what_was_said_and_by_which_version(run: Path) -> None:
    done = job(run, "--request", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert "said: AD; NC 0.100, MCI 0.200, AD 0.700" in done.stdout
    assert "software 0.7.0, prompt diagnose-3, operating point 0123456789ab" in done.stdout
    assert "request open" not in done.stdout


def test_json_is_a_line_for_each_record(run: Path) -> None:
    done = job(run, "--json", "--key", "clinic", "--since", NOW, "--until", audit_time(datetime.now(UTC)))
    assert [json.loads(line)["request_id"] for line in done.stdout.splitlines()] == ["a", "open"]


def test_missing_record_is_status_1(run: Path) -> None:
    done = job(run, "--request", "nope")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no record of request nope\n")
    assert job(run, "--until", "2026-01-31").stderr == "no such record\n"


@pytest.mark.parametrize("arguments", [["run.path=/nowhere"], ["--since", "yesterday"], ["serving.audit.roll_s=0"]])
def test_what_cannot_be_read_is_status_2(run: Path, arguments: list[str]) -> None:
    done = job(run, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_dry_run_prints_the_config(run: Path) -> None:
    done = job(run, "--dry-run", "--request", "a")
    assert done.returncode == 0
    assert "serving:" in done.stdout
