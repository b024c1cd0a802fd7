"""Reads one upload in a process of its own, with limits on memory and time.

serve/scans.py starts it as `python -m clinical_reasoner.serving.upload_reader`. Takes two lines of JSON on standard
input: UploadRules, as soon as it starts; then, when there is something to read, memory_gib, cpu_s, sent and patient.
Gives one JSON object on standard output and ends; nothing else of what was sent leaves it.
"""

from __future__ import annotations

import base64
import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

from clinical_reasoner.serving.schema import WHOLE_BODY
from clinical_reasoner.serving.upload_errors import TOO_LARGE, UNUSABLE
from clinical_reasoner.serving.uploads import Sent, Upload, UploadError, UploadRules, read_upload

_GIB = 2**30


def job_line(sent: Sent, patient_fields: dict[str, Any], rules: UploadRules) -> bytes:
    """The second line."""
    files = {"scan": sent.scan, "segmentation": sent.segmentation}
    job = {
        "sent": {name: None if file is None else str(file) for name, file in files.items()}
        | {"slices": [str(file) for file in sent.slices]}
        | {"segmenter": sent.segmenter, "field_strength_t": sent.field_strength_t},
        "patient": patient_fields,
        "memory_gib": rules.limits.memory_gib,
        "cpu_s": math.ceil(rules.limits.timeout_s),
    }
    return json.dumps(job).encode() + b"\n"


def read_answer(line: bytes) -> Upload:
    """What the process gave. Raises UploadError where it refused, and ValueError for what is no answer of it."""
    try:
        answer = json.loads(line)
        if "error" in answer:
            error = answer["error"]
            raise UploadError(str(error["field"]), str(error["message"]), int(error["status"]))
        picture = answer["picture"]
        return Upload(
            picture=None if picture is None else base64.b64decode(picture, validate=True),
            slices=tuple((str(name), base64.b64decode(png, validate=True)) for name, png in answer["slices"]),
            grades={str(name): str(grade) for name, grade in answer["grades"].items()},
            warnings=tuple(str(warning) for warning in answer["warnings"]),
        )
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None


def main() -> None:
    """Nothing is raised: a traceback may hold what was sent."""
    rules = UploadRules.model_validate_json(sys.stdin.buffer.readline())
    line = sys.stdin.buffer.readline()
    if not line:  # the endpoint ended
        return
    job = json.loads(line)
    _limit(int(job["memory_gib"] * _GIB), job["cpu_s"])
    try:
        answer = _answer(_sent(job["sent"]), job["patient"], rules)
    except UploadError as error:
        answer = _error(error.field, error.message, error.status)
    except MemoryError:
        answer = _error(WHOLE_BODY, "reading it takes more memory than it may", TOO_LARGE)
    except Exception as error:  # whatever a crafted file did
        answer = _error(WHOLE_BODY, f"cannot be read ({type(error).__name__})", UNUSABLE)
    sys.stdout.buffer.write(json.dumps(answer).encode())
    sys.stdout.buffer.flush()


def _limit(memory: int, cpu_s: int) -> None:
    """Of this process: bytes of address space, seconds of work from now on in case that nobody is left who watches the
    clock, and no core file, which would hold the scan."""
    used_s = math.ceil(time.process_time())
    work_s = used_s + cpu_s + 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for kind, soft, hard in ((resource.RLIMIT_AS, memory, memory), (resource.RLIMIT_CPU, work_s, work_s + 1)):
        given = resource.getrlimit(kind)[1]  # no process may raise it
        most = hard if given == resource.RLIM_INFINITY else min(hard, given)
        resource.setrlimit(kind, (min(soft, most), most))


def _sent(job: dict[str, Any]) -> Sent:
    scan, segmentation = (None if job[name] is None else Path(job[name]) for name in ("scan", "segmentation"))
    slices = tuple(Path(file) for file in job["slices"])
    return Sent(scan, segmentation, slices, job["segmenter"], job["field_strength_t"])


def _answer(sent: Sent, patient: dict[str, Any], rules: UploadRules) -> dict[str, Any]:
    upload = read_upload(sent, patient, rules)
    return {
        "picture": None if upload.picture is None else _text(upload.picture),
        "slices": [(name, _text(png)) for name, png in upload.slices],
        "grades": dict(upload.grades),
        "warnings": upload.warnings,
    }


def _error(field: str, message: str, status: int) -> dict[str, Any]:
    return {"error": {"field": field, "message": message, "status": status}}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


if __name__ == "__main__":
    main()
