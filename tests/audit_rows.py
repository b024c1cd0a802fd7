"""Audit records for tests, and a process that writes them until it is killed.

python -m tests.audit_rows RUN_FOLDER NAME [ROLL_ROWS] prints the request id of each record once it is acknowledged.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Any

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AuditError, AuditRow, LabelProbability
from clinical_reasoner.serving.audit_log import open_audit_log


def audit_row(request_id: str = "r-1", **changed: Any) -> AuditRow:
    """The record of an answered request."""
    values: dict[str, Any] = {
        "request_id": request_id,
        "key_id": "clinic",
        "time": "2026-01-31T09:05:00.123Z",
        "form": "diagnose",
        "input_hmac": "0a" * 32,
        "model_asked": "auto",
        "answered_by": "student",
        "routing": "student_confident",
        "degraded": False,
        "refer": False,
        "diagnosis": "AD",
        "probabilities": tuple(
            LabelProbability(label=label, probability=p) for label, p in (("NC", 0.1), ("MCI", 0.2), ("AD", 0.7))
        ),
        "prediction_set": ("AD", "MCI"),
        "model": "rationale_then_label",
        "model_fingerprint": "f1" * 32,
        "prompt_version": "diagnose-3",
        "operating_point": "0123456789ab",
        "version": "0.7.0",
        "latency_s": 0.412,
        "status": 200,
        "outcome": "answered",
        "prompt_tokens": 212,
        "output_tokens": 140,
    }
    return AuditRow(**{**values, **changed})


def write_until_killed(run_path: str, name: str, roll_rows: int) -> None:
    log = open_audit_log(AuditConfig(roll_rows=roll_rows, roll_s=0.05), run_path)

    def roll() -> None:
        while True:
            with suppress(AuditError):
                log.roll()

    threading.Thread(target=roll, daemon=True).start()
    for number in range(1_000_000):
        row = audit_row(f"{name}-{number}")
        try:
            log.append([row])
        except AuditError as error:
            print(f"error: {error}", flush=True)
            continue
        os.write(1, f"{row.request_id}\n".encode())


if __name__ == "__main__":
    write_until_killed(sys.argv[1], sys.argv[2], int(sys.argv[3]))
