"""FHIR over HTTP: the example answered, refusals as OperationOutcome, and nothing of the patient in any of them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.operationoutcome import OperationOutcome

from clinical_reasoner.llm.prompting import load_exemplars
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.serving.panel import ModelUnavailableError, Panel, student_role, teacher_role
from serve import fhir_routes
from serve.fhir_routes import add_fhir_routes
from tests.unit.conftest import student_of
from tests.unit.serve.desks import plain_desk, records_in
from tests.unit.serving.engines import TASK, PlainEngine, Said, reply
from tests.unit.serving.fhir_bundles import bundle, example, mmse, observation, patient

CANARY = "Zebulon"
FHIR = {"content-type": "application/fhir+json"}
URL = "/fhir/$diagnose"
SURE, TEACHER = reply("direct", "AD", 0.9), reply("diagnose", "MCI", 0.8)


def panel() -> Panel:
    load_exemplars(TASK.exemplars, TASK)
    return Panel(TASK, student_role(student_of("label_only")), teacher_role("someone/teacher", NO_EXEMPLARS), 0.8)


def api(folder: Path, student: Said = SURE, teacher: Said = TEACHER, **limits: Any) -> FastAPI:
    engines: Any = {"student": PlainEngine(student), "teacher": PlainEngine(teacher)}
    made = FastAPI()
    desk = plain_desk(panel(), engines, folder, **limits)
    assert desk.codes is not None
    add_fhir_routes(made, desk, desk.codes)
    return made


def send(app: FastAPI, content: Any, url: str = URL, method: str = "POST", **headers: str) -> httpx.Response:
    sent = content if isinstance(content, bytes | None) else json.dumps(content).encode()

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
            return await client.request(method, url, content=sent, headers={**FHIR, **headers})

    return asyncio.run(once())


def assert_outcome(response: httpx.Response, status: int) -> list[dict[str, Any]]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/fhir+json")
    told = response.json()
    OperationOutcome.model_validate(told)
    assert CANARY not in response.text
    issues: list[dict[str, Any]] = told["issue"]
    return issues


@pytest.mark.parametrize(
    "kind",
    [
        "application/fhir+json",
        "application/json; charset=utf-8",
        'application/fhir+json; charset="UTF-8"; fhirVersion=4.0',
        "Application/FHIR+JSON; fhirVersion=4.0; charset=utf-8",
    ],
)
@pytest.mark.parametrize(("model", "diagnosis"), [("auto", "AD"), ("student", "AD"), ("teacher", "MCI")])
def test_the_example_is_answered(kind: str, model: str, diagnosis: str, tmp_path: Path) -> None:
    response = send(api(tmp_path), example(), f"{URL}?model={model}", **{"content-type": kind})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/fhir+json")
    sent = response.json()
    Bundle.model_validate(sent)
    report = sent["entry"][0]["resource"]
    assert report["resourceType"] == "DiagnosticReport"
    assert report["conclusionCode"][0]["coding"][1]["code"] == diagnosis
    assert report["subject"] == {"reference": example()["entry"][0]["fullUrl"]}


@pytest.mark.parametrize(
    ("content", "status", "place"),
    [
        (b'{"resourceType": "Zebulon', 400, "Bundle"),
        (b"", 400, "Bundle"),
        (b"[" * 100_000, 400, "Bundle"),
        ({"resourceType": CANARY}, 422, "Bundle.resourceType"),
        (bundle(patient(), mmse(CANARY)), 422, "Bundle.entry[1].resource.valueQuantity.value"),
        (bundle(patient(), mmse(99)), 422, "Bundle.entry[1].resource.value"),
        (bundle(patient(), mmse(subject={"reference": CANARY})), 422, "Bundle.entry[1].resource.subject.reference"),
        (bundle(patient(), *[mmse()] * 501), 422, "Bundle.entry"),
        (bundle(patient(), observation(CANARY, CANARY)), 422, "Bundle"),
    ],
)
def test_bundles_that_cannot_be_used(
    content: Any, status: int, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        issues = assert_outcome(send(api(tmp_path), content), status)
    assert place in [place for issue in issues for place in issue.get("expression", ())]
    assert CANARY not in caplog.text


def test_other_refusals_have_the_same_form(tmp_path: Path) -> None:
    assert_outcome(send(api(tmp_path), example(), **{"content-type": "text/plain"}), 415)
    for options in ("charset=latin-1", "fhirVersion=4.0; charset=latin-1"):
        assert_outcome(send(api(tmp_path), example(), **{"content-type": f"application/json; {options}"}), 415)
    assert_outcome(send(api(tmp_path), example(), f"{URL}?model={CANARY}"), 422)
    assert_outcome(send(api(tmp_path, max_body_mib=0.001), example()), 413)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelUnavailableError("student", 503, "no answer"), 503, "transient"),
        (ModelUnavailableError("student", 422, "too long"), 422, "invalid"),
        (RuntimeError(f"prompt: {CANARY}"), 500, "exception"),
    ],
)
def test_failures_of_a_model(
    error: Exception, status: int, code: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = send(api(tmp_path, student=error), example(), f"{URL}?model=student")
    assert [issue["code"] for issue in assert_outcome(response, status)] == [code]
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)
    assert CANARY not in caplog.text


def test_a_report_that_cannot_be_written_is_recorded_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def invalid(*_: Any) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(fhir_routes, "write_report", invalid)
    with caplog.at_level(logging.DEBUG):
        assert_outcome(send(api(tmp_path), example()), 500)
    assert [(row.status, row.outcome) for row in records_in(tmp_path)] == [(500, "failed")]
    assert CANARY not in caplog.text


def test_capabilities(tmp_path: Path) -> None:
    response = send(api(tmp_path), None, "/fhir/metadata", "GET")
    assert response.status_code == 200
    assert response.json()["resourceType"] == "CapabilityStatement"


def test_documentation_has_the_example_and_every_refusal(tmp_path: Path) -> None:
    operation = send(api(tmp_path), None, "/openapi.json", "GET").json()["paths"][URL]["post"]
    for kind in ("application/fhir+json", "application/json"):
        assert operation["requestBody"]["content"][kind]["example"] == example()
    media = {status: list(response["content"]) for status, response in operation["responses"].items()}
    assert set(media) >= {"200", "400", "401", "403", "413", "415", "422", "429", "500", "502", "503", "504"}
    assert {kind for kinds in media.values() for kind in kinds} == {"application/fhir+json"}
