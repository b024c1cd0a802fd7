"""The endpoint for real: Ray Serve, two vLLM engines, HTTP. The student base stands in for a trained student."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import RunFolder
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

MODELS = ROOT / "platform/clinical_reasoner/reference/models"
STUDENT = "students/student/rationale_then_label/0"
CANARY = "Zebulon"
START_LIMIT_S = 600
STOP_LIMIT_S = 120


@dataclass(frozen=True)
class Endpoint:
    client: httpx.Client
    process: subprocess.Popen[str]
    output: Path
    """What the process printed."""
    ray: Path
    """Folder of Ray's sessions."""

    def ask(self, **body: Any) -> httpx.Response:
        return self.client.post("/v1/diagnose", json=body)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("endpoint")
    shutil.copytree(MODELS / "student", folder / f"run/{STUDENT}/model")
    run = RunFolder(str(folder / "run"))
    run.finish(STUDENT, settings={}, inputs={}, rows_in=0, rows_out=0, rows_rejected=0, seconds=0)
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets there
    port = free_port()
    command = [sys.executable, "jobs/serve_endpoint.py", "--config", "configs/demo.yaml"]
    command += [f"run.path={folder}/run", f"serving.port={port}", f"teacher.model={MODELS}/teacher"]
    with (folder / "output.txt").open("w") as stream:
        env = {**environment(), "RAY_TMPDIR": str(ray)}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stream, stderr=stream, text=True)
    try:
        await_ready(process, folder / "output.txt")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield Endpoint(client, process, folder / "output.txt", ray)
    finally:
        stop(process)
        shutil.rmtree(ray, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def await_ready(process: subprocess.Popen[str], output: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while "ready: http" not in output.read_text():
        assert process.poll() is None, output.read_text()[-4000:]
        assert time.monotonic() < deadline, output.read_text()[-4000:]
        time.sleep(0.5)


def stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def example(endpoint: Endpoint, name: str) -> dict[str, Any]:
    """A request of the endpoint's own documentation."""
    body = endpoint.client.get("/openapi.json").json()["paths"]["/v1/diagnose"]["post"]["requestBody"]
    value: dict[str, Any] = body["content"]["application/json"]["examples"][name]["value"]
    return value


def test_healthz_says_that_both_engines_answer(endpoint: Endpoint) -> None:
    response = endpoint.client.get("/healthz")
    assert response.status_code == 200
    assert response.json().items() >= {"status": "ok", "student": "ok", "teacher": "ok"}.items()


@pytest.mark.parametrize("form", ["patient", "description"])
@pytest.mark.parametrize("model", ["student", "teacher"])
def test_the_model_that_was_asked_for_answers(endpoint: Endpoint, model: str, form: str) -> None:
    response = endpoint.ask(**{**example(endpoint, form), "model": model})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["answered_by"], answer["routing"]) == (model, f"{model} asked for")
    assert answer["model"] == {"student": "rationale_then_label", "teacher": "teacher"}[model]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert max(answer["probabilities"], key=answer["probabilities"].get) == answer["diagnosis"]
    assert len(answer["rationale"]) > 100
    supported = [claim for claim in answer["claims"] if claim["verdict"] == "supported"]
    assert len(supported) >= 0.8 * len(answer["claims"]) > 0
    assert "Research use only" in answer["research_use_only"]


def test_both_forms_of_a_patient_get_the_same_answer(endpoint: Endpoint) -> None:
    answers = [
        endpoint.ask(**{**example(endpoint, form), "model": "teacher"}).json() for form in ("patient", "description")
    ]
    assert answers[0]["rationale"] == answers[1]["rationale"]


def test_auto_says_who_answered_and_why(endpoint: Endpoint) -> None:
    student = endpoint.ask(**{**example(endpoint, "patient"), "model": "student"}).json()
    answer = endpoint.ask(**{**example(endpoint, "patient"), "model": "auto"}).json()
    if max(student["probabilities"].values()) >= 0.8:
        assert (answer["answered_by"], answer["routing"][:17]) == ("student", "student confident")
    else:
        assert (answer["answered_by"], answer["routing"][:23]) == ("teacher", "student below threshold")


def test_request_id_is_in_body_and_header(endpoint: Endpoint) -> None:
    responses = [endpoint.ask(**example(endpoint, "patient")) for _ in range(2)]
    ids = [response.json()["request_id"] for response in responses]
    assert [response.headers["x-request-id"] for response in responses] == ids
    assert len({str(uuid.UUID(one, version=4)) for one in ids}) == 2


def test_requests_are_answered_side_by_side(endpoint: Endpoint) -> None:
    """Equal requests that start together end together; one after another, the ends would spread over the whole time."""
    body = {**example(endpoint, "patient"), "model": "teacher"}
    endpoint.ask(**body)  # fills the prefix cache

    def ask(_: int) -> tuple[int, float]:
        return endpoint.ask(**body).status_code, time.monotonic()

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses, ends = zip(*pool.map(ask, range(8)), strict=True)
    assert statuses == (200,) * 8
    assert max(ends) - min(ends) < 0.5 * (max(ends) - started)  # 7/8 where one waits for the other


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"patient": {"mmse": 99}}, "patient.mmse"),
        ({"patient": {"findings": {"hippocampal_atrophy": CANARY}}}, "patient.findings.hippocampal_atrophy"),
        ({"patient": {"findings": {"atrophy": "No"}}}, "patient.findings.atrophy"),
        ({"patient": {}}, "patient"),
        ({}, "patient"),
        ({"patient": {"mmse": 22}, "description": CANARY}, "description"),
        ({"description": f"{CANARY} " * 2000}, "description"),
        ({"description": f"{CANARY} {chr(0x1F9E0)} " * 700, "model": "teacher"}, "description"),
        ({"description": CANARY, "model": "oracle"}, "model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_requests_get_422_and_the_field(endpoint: Endpoint, body: dict[str, Any], field: str) -> None:
    response = endpoint.ask(**body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert CANARY not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/diagnose", 405), ("POST", "/v1/nothing", 404), ("POST", "/v1/diagnose", 422)],
)
def test_other_failures_are_problems_too(endpoint: Endpoint, method: str, path: str, status: int) -> None:
    response = endpoint.client.request(method, path, content=b"{not json", headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    if status == 422:
        assert response.json()["errors"] == [{"field": "(body)", "message": "not valid JSON"}]


def test_a_batch_asks_the_teacher_that_the_endpoint_runs(endpoint: Endpoint, tmp_path: Path) -> None:
    """The stage joins the endpoint's cluster, and starts no engine of its own."""
    command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", f"run.path={tmp_path}"]
    command += ["cohort.patients=80", "cohort.phantoms=null", "imaging.slices=false", "evidence.fewest_controls=10"]
    command += ["rationales.asks={rationalize: [train], diagnose: [test], direct: [test]}"]
    command += ["teacher.model=teacher", "teacher.deployment.name=engine-teacher"]
    shell = {**environment(), "RAY_TMPDIR": str(endpoint.ray), "RAY_ADDRESS": "auto"}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    rows = RunFolder(str(tmp_path)).read_table("rationales", RATIONALES).to_pylist()
    assert {row["model"] for row in rows} == {"teacher"}
    assert {row["ask"] for row in rows} == {"rationalize", "diagnose", "direct"}
    assert sum(row["rationale"] is not None or row["predicted"] is not None for row in rows) >= 0.95 * len(rows)
    told = [row for row in rows if row["ask"] != "rationalize" and row["predicted"]]
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in told)
    assert endpoint.client.get("/healthz").status_code == 200, "the endpoint goes on"


def test_a_deployment_that_does_not_run_is_said_before(endpoint: Endpoint, tmp_path: Path) -> None:
    command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", f"run.path={tmp_path}"]
    command += ["cohort.patients=80", "cohort.phantoms=null", "imaging.slices=false", "evidence.fewest_controls=10"]
    command += ["teacher.model=teacher", "teacher.deployment.name=nothing"]
    shell = {**environment(), "RAY_TMPDIR": str(endpoint.ray), "RAY_ADDRESS": "auto"}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "teacher.deployment.name 'nothing'" in done.stderr and "Traceback" not in done.stderr


def test_no_patient_text_in_any_log_and_a_clean_stop(endpoint: Endpoint) -> None:
    """Last: it stops the endpoint, so that every log is flushed."""
    description = f"{CANARY} is a beekeeper. " + example(endpoint, "description")["description"]
    for model in ("student", "teacher", "auto"):
        assert endpoint.ask(description=description, model=model).status_code in (200, 502)
    stop(endpoint.process)
    assert endpoint.process.returncode == 0, endpoint.output.read_text()[-4000:]
    logs = [file for file in endpoint.ray.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any("replica_diagnosis" in file.name for file in logs), "the access log of the ingress is not where it was"
    assert [file for file in (*logs, endpoint.output) if CANARY.encode() in file.read_bytes()] == []
