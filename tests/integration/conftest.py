"""One real run of the whole path, killed once on the way, shared by the integration tests."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.integration.pipeline_run import (
    LIMIT_S,
    ROOT,
    FinishedRun,
    descendants,
    environment,
    generated_rows,
    pipeline_command,
)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    path = tmp_path_factory.mktemp("pipeline") / "run"
    log = path.parent / "killed.log"
    with log.open("w") as stream:
        first = subprocess.Popen(pipeline_command(path), cwd=ROOT, env=environment(), stdout=stream, stderr=stream)
        deadline = time.monotonic() + LIMIT_S
        while generated_rows(path) == 0:
            assert first.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, "no rationale was written in time"
            time.sleep(0.2)
        started = descendants(first.pid)
        first.send_signal(signal.SIGKILL)
        first.wait()
    before = generated_rows(path)
    second = subprocess.run(
        pipeline_command(path),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert second.returncode == 0, second.stdout[-2000:] + second.stderr[-4000:]
    return FinishedRun(path, before, tuple(str(one) for one in started if one.is_running()), second.stdout)
