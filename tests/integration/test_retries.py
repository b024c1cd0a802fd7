"""Asks without an answer: the run ends well with their reasons, and the next run puts them again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import Manifest, RunFolder
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
PATIENTS = 60
SETTINGS = (
    f"cohort.patients={PATIENTS}",
    "cohort.phantoms=null",
    "imaging.slices=false",
    "evidence.fewest_controls=10",
    "rationales.asks={rationalize: [], diagnose: [], direct: [train, validation, test]}",
    "student.arms=[label_only]",
    "teacher.model=teacher",
    "teacher.endpoint.max_retries=0",
    "teacher.endpoint.prompt_price=1000000",
)


@dataclass
class Teacher:
    """A server that answers every patient with the same diagnosis, except those whose turn it is to fail."""

    url: str = ""
    overloaded: bool = True
    """Every third patient gets 503."""
    down: bool = False
    """Everyone does."""
    asked: list[str] = field(default_factory=list)

    def answer(self, question: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(question)
        turn = crc32(question.encode()) % 3
        if self.down or (turn == 0 and self.overloaded):
            return 503, {"error": {"message": question}}
        if turn == 1:
            return 400, {"error": {"message": f"This model's maximum context length is 9 tokens. {question}"}}
        message = {"role": "assistant", "content": "Diagnosis: (A)"}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return 200, {"id": "1", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage}


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    state = Teacher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": "teacher", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*state.answer(body["messages"][-1]["content"]))

        def _send(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # the default of 5 refuses connections that come together

    http = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    http.shutdown()


def generate(path: Path, teacher: Teacher) -> tuple[Manifest, list[dict[str, Any]], str]:
    command = [sys.executable, "jobs/generate_rationales.py", "--config", "configs/demo.yaml", f"run.path={path}"]
    command += [*SETTINGS, f"teacher.base_url={teacher.url}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = RunFolder(str(path))
    manifest = run.manifest("rationales")
    assert manifest is not None
    return manifest, run.read_table("rationales", RATIONALES).to_pylist(), done.stdout + done.stderr


def test_asks_without_an_answer_are_put_again_by_the_next_run(teacher: Teacher, tmp_path: Path) -> None:
    first, rows, said = generate(tmp_path, teacher)
    failed = [row for row in rows if row["reject_reason"] == "engine: InternalServerError 503"]
    too_long = [row for row in rows if row["reject_reason"] == "engine: prompt longer than the context"]
    assert len(rows) == PATIENTS and 0 < len(failed) < PATIENTS > len(too_long) > 0
    assert first.details["unanswered"] == len(failed)
    assert "start again to ask these once more" in said
    assert not [question for question in teacher.asked if question.splitlines()[0] in said], "a patient was printed"

    teacher.down = True
    still, untouched, said = generate(tmp_path, teacher)
    assert (still, untouched) == (first, rows) and "still no answer" in said

    teacher.down = teacher.overloaded = False
    teacher.asked.clear()
    second, filled, _ = generate(tmp_path, teacher)
    assert len(teacher.asked) == len(failed), "nobody else is asked again"
    assert [row["row_id"] for row in filled] == [row["row_id"] for row in rows]
    assert [row for row in filled if row not in rows] == [
        row for row in filled if row["row_id"] in {one["row_id"] for one in failed}
    ]
    assert {row["predicted"] for row in filled if row["reject_reason"] is None} == {"AD"}
    assert second.details["unanswered"] == 0 and second.identity != first.identity
    answered = PATIENTS - len(too_long)
    assert second.details["costs"] == {"teacher": 10.0 * answered}

    teacher.asked.clear()
    third, same, _ = generate(tmp_path, teacher)
    assert (third, same, teacher.asked) == (second, filled, [])
