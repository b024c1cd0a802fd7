"""What integration tests share: one real run of the whole path, killed once on the way, and one running endpoint."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.integration.endpoint_run import Endpoint, Ranked, rated, running_endpoint
from tests.integration.pipeline_run import (
    LIMIT_S,
    ROOT,
    FinishedRun,
    descendants,
    environment,
    generated_rows,
    pipeline_command,
)

LAST_OF_THE_ENDPOINT = ("test_endpoint_faults.py", "test_endpoint_stop.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the endpoint without others between them, while it runs; those that harm it, then the one that stops it,
    at their end."""
    own = [item for item in items if item.path.name.startswith("test_endpoint")]
    if own:
        place, others = items.index(own[0]), [item for item in items if item not in own]
        for name in LAST_OF_THE_ENDPOINT:
            own = sorted(own, key=lambda item: item.path.name == name)
        items[:] = [*others[:place], *own, *others[place:]]


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Stopped when the tests end, or before by `test_endpoint_stop.py`."""
    with running_endpoint(tmp_path_factory.mktemp("endpoint")) as running:
        yield running


@pytest.fixture(scope="session")
def ranked(endpoint: Endpoint) -> Ranked:
    """The patients, those first of whom the student is least sure."""
    return rated(endpoint)


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
