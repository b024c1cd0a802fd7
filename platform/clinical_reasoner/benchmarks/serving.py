"""The endpoint against vLLM's own server: same model, same prompts, same machine, both up and asked in turns.

Time over vLLM's for one client (p50), and requests per second of many clients. Both are asked for the same answer:
greedy, as long, with the candidates of each token. The student's engine runs idle beside the teacher's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, Popen, TimeoutExpired
from typing import Any

import httpx
import numpy as np

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.benchmarks.ports import free_port
from clinical_reasoner.cluster import QUIET, local_or_name
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import served_student
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.llm.engine import engine_environment, served_engine_arguments
from clinical_reasoner.rationales.exemplars import exemplar_choice
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.serving.asking import prompt_of
from clinical_reasoner.serving.case import read_case
from clinical_reasoner.serving.panel import teacher_role
from clinical_reasoner.serving.schema import request_model
from clinical_reasoner.task import load_task

MANY = 32
"""Clients at a time."""
PATIENTS = 64
ROUNDS = 3
"""In each, both are asked by one client and by many."""
ALONE, TOGETHER = 24, 192
"""Requests of a round, of one client and of many."""
TOP_LOGPROBS = 5
"""As the endpoint asks its engines."""
START_LIMIT_S = 600
FAST_PATH = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
"""Ray Serve's data path through HAProxy; set them for the endpoint with jobs/serve_endpoint.py too."""


@dataclass
class Server:
    """One of the two, and how long its answers took."""

    name: str
    url: str
    path: str
    bodies: list[dict[str, Any]]
    alone_s: list[float]
    together_s: list[float]
    rates: list[float]
    """Requests per second of many clients, one a round."""


def benchmark_serving(config: PipelineConfig) -> dict[str, Any]:
    """The ratio is that of requests per second with many clients, endpoint over vLLM's own server."""
    with ExitStack() as at_end:
        folder = Path(at_end.enter_context(tempfile.TemporaryDirectory()))
        bodies, chats = _requests(config)
        plain = at_end.enter_context(_plain_server(config, folder, chats))
        endpoint = at_end.enter_context(_endpoint(config, folder, bodies))
        for server in (plain, endpoint):  # everything that is done once, and the prefix caches
            asyncio.run(_ask(server, MANY, len(server.bodies)))
        for number in range(ROUNDS):
            for server in (plain, endpoint) if number % 2 == 0 else (endpoint, plain):
                _round(server)
    overhead_ms = 1000 * (np.median(endpoint.alone_s) - np.median(plain.alone_s))
    return {
        "benchmark": "serving",
        "ratio": round(float(np.median(endpoint.rates) / np.median(plain.rates)), 3),
        "overhead_p50_ms": round(float(overhead_ms), 1),
        "fast_path": all(os.environ.get(name) == value for name, value in FAST_PATH.items()),
        **{f"{server.name}_requests_per_s": [round(rate, 1) for rate in server.rates] for server in (plain, endpoint)},
        **{f"{server.name}_one_client_ms": _percentiles(server.alone_s) for server in (plain, endpoint)},
        **{f"{server.name}_{MANY}_clients_ms": _percentiles(server.together_s) for server in (plain, endpoint)},
    }


def _requests(config: PipelineConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Bodies of the endpoint about synthetic patients, and chats with the very prompts that it makes of them."""
    if not isinstance(config.cohort, SyntheticCohort):
        raise UserError("the benchmark draws its patients itself: cohort.kind must be synthetic")
    task = load_task(config.task.file)
    population = load_config(Population, config.cohort.population)
    model = request_model(task, config.serving.max_description_chars)
    role = teacher_role(
        config.teacher.model, exemplar_choice(config, task), config.rationales.words(), config.serving.teacher_ask
    )
    bodies, chats = [], []
    for index in range(PATIENTS):
        patient = draw_patient(population, index, config.cohort.seed, {"test": 1.0})
        fields = {field.name: getattr(patient, field.name) for field in task.fields}
        grades = {one.name: one.grade for one in grade_patient(patient, task, population.cut_points)}
        body = {"model": "teacher", "patient": {**fields, "findings": grades}}
        bodies.append(body)
        case = read_case(model.model_validate(body), task)
        chats.append(
            {
                "model": "teacher",
                "messages": prompt_of(role, role.ask, case, task).messages,
                "max_tokens": config.teacher.sampling.max_tokens,
                "temperature": 0.0,
                "seed": config.teacher.sampling.seed,
                "logprobs": True,
                "top_logprobs": TOP_LOGPROBS,
                "chat_template_kwargs": config.teacher.engine.chat_template_kwargs or None,
            }
        )
    assert ASK_KINDS[role.ask].gives_label
    return bodies, chats


def _round(server: Server) -> None:
    server.alone_s += asyncio.run(_ask(server, 1, ALONE))
    started = time.perf_counter()
    server.together_s += asyncio.run(_ask(server, MANY, TOGETHER))
    server.rates.append(TOGETHER / (time.perf_counter() - started))
    print(f"{server.name}: {server.rates[-1]:.1f} requests/s, one client {_percentiles(server.alone_s)} ms", flush=True)


async def _ask(server: Server, clients: int, requests: int) -> list[float]:
    """Seconds of each answer. Raises UserError for one that is none."""
    waiting = iter(range(requests))
    seconds: list[float] = []

    async def client() -> None:
        for number in waiting:
            started = time.perf_counter()
            response = await http.post(server.path, json=server.bodies[number % len(server.bodies)])
            if response.status_code != 200:
                raise UserError(f"{server.name} answered {response.status_code}")
            seconds.append(time.perf_counter() - started)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits, trust_env=False) as http:
        await asyncio.gather(*(client() for _ in range(clients)))
    return seconds


@contextmanager
def _plain_server(config: PipelineConfig, folder: Path, chats: list[dict[str, Any]]) -> Iterator[Server]:
    engine, source, port = config.teacher.engine, local_or_name(config.teacher.model), free_port()
    options = {"model": source, "served_model_name": "teacher", "host": "127.0.0.1", "port": port}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += _flags({**options, **served_engine_arguments(engine)})
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "plain.log", {**QUIET, **engine_environment(engine, source)}, f"{url}/health"):
        yield Server("plain", url, "/v1/chat/completions", chats, [], [], [])


def _flags(options: dict[str, Any]) -> list[str]:
    """Arguments of the engine as vLLM's command line has them."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


@contextmanager
def _endpoint(config: PipelineConfig, folder: Path, bodies: list[dict[str, Any]]) -> Iterator[Server]:
    """Over a run whose student is the untrained base: only the teacher is asked, by HTTP and without a key."""
    run, student, port = RunFolder(str(folder / "run")), served_student(config), free_port()
    run.put_folder(local_or_name(config.student.base), student.model_folder)
    run.finish(student.stage, settings={}, inputs={}, rows_in=0, rows_out=0, rows_rejected=0, seconds=0)
    served = served_config(config, run.path)
    file = folder / "served.yaml"
    file.write_text(served.model_dump_json(exclude_defaults=True))
    command = [sys.executable, "jobs/serve_endpoint.py", "--config", str(file), f"serving.port={port}"]
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "endpoint.log", {}, f"{url}/readyz"):
        yield Server("endpoint", url, "/v1/diagnose", bodies, [], [], [])


def served_config(config: PipelineConfig, path: str) -> PipelineConfig:
    """Over the run at `path`, for clients of this machine: their requests have no API key, and go to plain HTTP."""
    serving = config.serving.model_copy(update={"api_keys": None, "tls": None, "host": "127.0.0.1"})
    run = config.run.model_copy(update={"path": path})
    return config.model_copy(update={"run": run, "serving": serving})


@contextmanager
def _running(command: list[str], log: Path, more: dict[str, str], ready: str) -> Iterator[None]:
    """A server's process, from when it answers to its end."""
    with log.open("w") as stream:
        process = Popen(command, env={**os.environ, **more}, stdout=stream, stderr=STDOUT)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{Path(command[1]).name} did not start: {log.read_text()[-2000:]}")
            time.sleep(1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(120)
        except TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{part}": round(float(np.percentile(seconds, part)) * 1000, 1) for part in (50, 95, 99)}
