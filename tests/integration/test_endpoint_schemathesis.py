"""Schemathesis over the OpenAPI document of the running endpoint: nothing that the document does not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.endpoint_run import Endpoint
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(3600)]

CASES = int(os.environ.get("SCHEMATHESIS_CASES", "300"))
"""At least so many; 2000 for a figure to publish."""
SEED = 7
CONFIG = """
[generation]
# A generated x-api-key beside the Authorization of the run makes two keys, of which none counts: nearly every request
# would be refused at the door, and after 60 of these in a minute with 429 where the check of keys expects 401.
with-security-parameters = false

[checks.not_a_server_error]
# 502: of a text without a patient a model may write what names no diagnosis, repeats its prompt, or has no end; that is
# an answer which the document describes. Every other 5xx is a fault.
expected-statuses = ["2xx", "3xx", "4xx", "502"]

[checks.positive_data_acceptance]
# 422: rules that JSON Schema has no words for: a description within 8,000 characters that has more tokens than fit into
# the model's context (a character may be several), a patient of whom nothing is known. 413, 415: of files, whose
# content the document cannot describe. 400: OpenAI's status for a prompt that does not fit. The others are the
# defaults; of 5xx the check above takes 502 alone.
expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "413", "415", "422", "429", "5xx"]

[checks.negative_data_rejection]
# 413: a part of a form that is of the wrong type may be refused for its size before its type is looked at. The others
# are the defaults.
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx"]

[[operations]]
include-path = "/v1/diagnose/batch"
# Lines that cannot be used are refused one by one, in an answer of 200.
checks.negative_data_rejection.expected-statuses = ["200", "4xx"]
"""
HOOKS = "tests.integration.schemathesis_hooks"


def test_the_endpoint_keeps_to_its_openapi_document(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operations = sum(len(path) for path in endpoint.client.get("/openapi.json").json()["paths"].values())
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{endpoint.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {endpoint.tokens['suite']}", "--no-color", "--no-shrink"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(CASES // operations + 1)]
    # One worker: with several, Hypothesis meets CPython 3.11's "AST constructor recursion depth mismatch".
    command += ["--seed", str(SEED), "--generation-database", "none", "--workers", "1", "--continue-on-failure"]
    command += ["--checks", "all", "--request-timeout", "60", "--report", "json", "--report-json-path", "report.json"]
    env = environment()
    env |= {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": f"{env['PYTHONPATH']}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=3000)
    assert (tmp_path / "report.json").is_file(), done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    counted = report["test_cases"]
    with capsys.disabled():
        print(f"\nschemathesis: {counted} over {report['operations']} in {report['running_time']:.0f} s")
    assert (report["failures"], report["errors"], done.returncode) == ([], [], 0), done.stdout[-12000:]
    assert report["operations"]["tested"] == report["operations"]["total"] == operations
    assert counted["generated"] >= CASES and counted["errored"] == 0
