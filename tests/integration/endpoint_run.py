"""The endpoint as a real process: Ray Serve, two vLLM engines, HTTP; the student base stands in for a student."""

from __future__ import annotations

import itertools
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

from clinical_reasoner.cohort.phantom_mark import SEGMENTER
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.evidence.stage import NORMS_FILE
from clinical_reasoner.evidence.w_scores import cohort_norms, norm_row
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.imaging.phantom_cohort import draw_body
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.operating_point import OPERATING_POINT_FILE, OperatingPoint, Tier
from clinical_reasoner.records import Measure
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.serving.new_keys import add_key
from clinical_reasoner.task import load_task
from tests.integration.pipeline_run import ROOT, descendants, environment

MODELS = ROOT / "platform/clinical_reasoner/reference/models"
STUDENT = "students/student/rationale_then_label/0"
TASK = ROOT / "configs/tasks/alzheimers.yaml"
CAPACITY = 24
"""Patients in work at a time."""
TEACHER_AT_A_TIME, QUEUE = 8, 12
"""Patients that the teacher answers at a time, and that wait for it: fewer than CAPACITY, so that both limits are met.
The student's engine takes all."""
TIMEOUT_S = 20
RELOAD_S = 0.5
START_LIMIT_S = 600
STOP_LIMIT_S = 120
THRESHOLD = 0.8
FAST = 1_000_000
"""Requests per minute of a key that no test is to exhaust."""
KEYS: Mapping[str, dict[str, Any]] = {
    "suite": {"requests_per_minute": FAST},
    "student-only": {"requests_per_minute": FAST, "models": ["student"]},
    "slow": {"requests_per_minute": 2},
    "revoked": {"requests_per_minute": FAST},
}
CANARY = "Zebulon"
"""In what is sent as free text, key, id, path, file name: it must come out nowhere but in answers to it."""
CANARY_AGE = 83.40719
"""As a number."""


@dataclass(frozen=True)
class Endpoint:
    url: str
    client: httpx.Client
    """With the key `suite`."""
    tokens: Mapping[str, str]
    """API keys by their id."""
    process: subprocess.Popen[str]
    folder: Path
    """Holds `run/`, the file of keys, and what the process printed."""
    ray: Path
    """Folder of Ray's sessions."""
    client_texts: list[str]
    """What else came out while it ran and is to be looked through for the canary: error bodies, metrics."""

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    @property
    def keys(self) -> Path:
        return self.folder / "keys.yaml"

    @property
    def run(self) -> RunFolder:
        return RunFolder(str(self.folder / "run"))

    @property
    def host(self) -> tuple[str, int]:
        at = httpx.URL(self.url)
        return at.host, at.port or 80

    def ask(self, **body: Any) -> httpx.Response:
        return self.client.post("/v1/diagnose", json=body)

    def headers(self, key: str = "suite") -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[key]}"}


@contextmanager
def running_endpoint(folder: Path) -> Iterator[Endpoint]:
    """Started as a user would, with keys, an operating point, norms and the audit record; stopped at the end."""
    shutil.copytree(MODELS / "student", folder / f"run/{STUDENT}/model")
    run = RunFolder(str(folder / "run"))
    run.finish(STUDENT, settings={}, inputs={}, rows_in=0, rows_out=0, rows_rejected=0, seconds=0)
    run.write_bytes(NORMS_FILE, phantom_norms().model_dump_json().encode())
    run.write_bytes(OPERATING_POINT_FILE, operating_point().model_dump_json().encode())
    tokens = {name: add_key(str(folder / "keys.yaml"), name, settings) for name, settings in KEYS.items()}
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets there
    port = free_port()
    command = [sys.executable, "jobs/serve_endpoint.py", "--config", "configs/demo.yaml"]
    command += [f"run.path={folder}/run", f"teacher.model={MODELS}/teacher", f"serving.port={port}"]
    command += [f"serving.api_keys={folder}/keys.yaml", f"serving.reload_s={RELOAD_S}"]
    command += [f"serving.max_ongoing_requests={CAPACITY}", f"serving.request_timeout_s={TIMEOUT_S}"]
    command += [f"teacher.engine.max_num_seqs={TEACHER_AT_A_TIME}", f"serving.max_queued_requests={QUEUE}"]
    command += ["serving.uploads.at_a_time=2", "serving.uploads.memory_gib=2"]
    with (folder / "output.txt").open("w") as stream:
        env = {**environment(), "RAY_TMPDIR": str(ray)}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stream, stderr=stream, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(process, folder / "output.txt")
        headers = {"authorization": f"Bearer {tokens['suite']}"}
        with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
            yield Endpoint(url, client, tokens, process, folder, ray, [])
    finally:
        stop(process)
        shutil.rmtree(ray, ignore_errors=True)


def operating_point(threshold: float = THRESHOLD, **changed: Any) -> OperatingPoint:
    """As evaluation would write it; its numbers are made up."""
    student = Tier(model="rationale_then_label", ask="diagnose", temperature=0.05, quantile=0.9, visits=200)
    teacher = Tier(model="teacher", ask="diagnose", temperature=1.5, quantile=0.8, visits=200)
    fields = {
        "task": "alzheimers",
        "labels": ("AD", "MCI", "NC"),
        "prompt_version": PROMPT_VERSION,
        "student": student,
        "teacher": teacher,
        "threshold": threshold,
        "coverage": 0.9,
        "target": "a number for tests",
    }
    return OperatingPoint.model_validate({**fields, **changed})


@contextmanager
def operating_at(endpoint: Endpoint, point: OperatingPoint) -> Iterator[None]:
    """Another operating point while the endpoint runs; then the first one again."""
    try:
        _put(endpoint, point)
        yield
    finally:
        _put(endpoint, operating_point())


def _put(endpoint: Endpoint, point: OperatingPoint) -> None:
    endpoint.run.write_bytes(OPERATING_POINT_FILE, point.model_dump_json().encode())

    def served() -> bool:
        return bool(endpoint.client.get("/healthz").json()["operating_point"] == point.version)

    eventually(served, 20, "the operating point is in use")


Ranked = list[tuple[float, dict[str, Any]]]


def rated(endpoint: Endpoint) -> Ranked:
    """The student's confidence in each patient, and the patient; the least sure first."""
    found = []
    for patient in patients():
        said = endpoint.ask(patient=patient, model="student").json()
        found.append((max(said["probabilities"].values()), patient))
    return sorted(found, key=lambda one: one[0])


def dividing(ranked: Ranked) -> float:
    """A threshold that some reach and others do not: in the middle of the widest gap."""
    confidences = [confidence for confidence, _ in ranked]
    low, high = max(itertools.pairwise(confidences), key=lambda pair: pair[1] - pair[0])
    assert high - low > 0.001, "the student is equally sure of all"
    return (low + high) / 2


def phantom_norms() -> Norms:
    """Of the volumes of phantoms of controls, from their drawn volumes: nothing is rendered."""
    task = load_task(TASK)
    population = load_config(Population, ROOT / "configs/cohort/population_clinic.yaml")
    parameters = load_config(PhantomParameters, ROOT / "configs/cohort/phantom.yaml")
    rows = []
    for index in range(120):
        patient, volumes, _ = draw_body(population, parameters, 7, index)
        if patient.label == task.controls:
            measures = tuple(Measure(name=name, value=value, unit="mm3") for name, value in volumes.items())
            rows.append(norm_row(patient.model_copy(update={"measures": measures, "segmenter": SEGMENTER}), task))
    return cohort_norms(rows, task, fewest=10)


def patients(count: int = 16) -> list[dict[str, Any]]:
    """Made up, from clearly well to clearly ill, with much in between."""
    grades = ("No", "Mild", "Severe")
    return [
        {
            "age_years": 62 + 5 * (place % 5),
            "sex": ("female", "male")[place % 2],
            "education_years": 9 + place % 8,
            "mmse": 30 - place * 14 // count,
            "apoe4_copies": place * 3 // count,
            "findings": {
                "hippocampal_atrophy": grades[place * 3 // count],
                "medial_temporal_atrophy": grades[max(0, place * 3 // count - place % 2)],
                "ventricle_enlargement": grades[place % 3],
            },
        }
        for place in range(count)
    ]


def canary_patient() -> dict[str, Any]:
    """A request whose free text names somebody."""
    text = f"{CANARY} {CANARY}son is a beekeeper. The patient is {CANARY_AGE} years old and scored 21 out of 30 on the "
    return {"description": f"{text}Mini-Mental State Examination (MMSE). Brain MRI: mild hippocampal atrophy."}


def example(endpoint: Endpoint, name: str) -> dict[str, Any]:
    """A request of the endpoint's own documentation."""
    response = endpoint.client.get("/openapi.json")
    assert response.status_code == 200, response.text[:500]
    body = response.json()["paths"]["/v1/diagnose"]["post"]["requestBody"]
    value: dict[str, Any] = body["content"]["application/json"]["examples"][name]["value"]
    return value


def replica(endpoint: Endpoint, deployment: str) -> Any:
    """Process (of psutil) of the one replica of a deployment: `diagnosis`, `engine-student` or `engine-teacher`."""
    title = f"ray::ServeReplica:diagnosis:{deployment}"
    return next(one for one in descendants(endpoint.process.pid) if _title(one).startswith(title))


def engine_processes(endpoint: Endpoint, role: str) -> list[Any]:
    """Processes of vLLM's engine below the replica of one model."""
    below = replica(endpoint, f"engine-{role}").children(recursive=True)
    return [one for one in below if "EngineCore" in _title(one)]


def mib(process: Any) -> float:
    """Resident memory, MiB."""
    return float(process.memory_info().rss) / 2**20


def _title(process: Any) -> str:
    psutil: Any = import_module("psutil")  # of Ray
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def eventually(seen: Any, limit_s: float, what: str) -> Any:
    """What `seen` returns, once that is true."""
    deadline = time.monotonic() + limit_s
    while not (found := seen()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.1)
    return found


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
