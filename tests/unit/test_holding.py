"""A run folder is held by one process, and by none that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clinical_reasoner.holding import held
from clinical_reasoner.runs import RunFolder

HOLDER = """
import sys, time
from clinical_reasoner.holding import held
from clinical_reasoner.runs import RunFolder
with held(RunFolder(sys.argv[1])):
    print("in", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": "platform"}
    command = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "in\n"
    return process


def test_a_second_process_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, started = holder(tmp_path, 1.5), time.monotonic()
    with held(RunFolder(str(tmp_path))):
        assert first.wait(timeout=10) == 0, "it came in only after the other one had ended"
    assert time.monotonic() - started > 0.5
    assert "another process works in this run folder" in capsys.readouterr().out


def test_a_killed_process_holds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = holder(tmp_path, 600)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with held(RunFolder(str(tmp_path))), held(RunFolder(str(tmp_path / "other"))):
        pass
    assert capsys.readouterr().out == ""
