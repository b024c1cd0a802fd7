"""The answer as FHIR: valid for fhir.resources, complete, and the same for the same answer."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from clinical_reasoner.serving.fhir_reading import read_bundle
from clinical_reasoner.serving.fhir_writing import EXTENSION, write_report
from clinical_reasoner.serving.schema import DiagnoseResponse
from tests.unit.serving.fhir_bundles import CODES, TASK, Json, bundle, example, mmse, observation, patient

NOW = datetime(2026, 3, 12, 9, 30, tzinfo=UTC)
READING = read_bundle(example(), TASK, CODES)
RATIONALE = "The MMSE score of 22 is low; hippocampal atrophy is severe – a clear picture."


def response(**changes: Any) -> DiagnoseResponse:
    answer = {
        "diagnosis": "AD",
        "diagnosis_text": "Alzheimer's disease",
        "option": "A",
        "probabilities": {"AD": 0.7, "MCI": 0.25, "NC": 0.05},
        "calibrated": True,
        "prediction_set": ("AD", "MCI"),
        "coverage": 0.9,
        "refer": False,
        "rationale": RATIONALE,
        "claims": [{"name": "mmse", "value": "22", "verdict": "supported", "start": 4, "end": 22}],
        "answered_by": "student",
        "routing": "student confident: 0.70 >= 0.60",
        "degraded": False,
        "model": "rationale_then_label",
        "prompt_version": "v1",
        "operating_point": "0123456789ab",
        "version": "0.1",
        "request_id": "request-1",
    }
    return DiagnoseResponse.model_validate({**answer, **changes})


def written(reading: Any = READING, now: datetime = NOW, key_id: str = "clinic", **changes: Any) -> Json:
    return write_report(response(**changes), reading, CODES, TASK, now, key_id)


def resources(sent: Json) -> dict[str, list[Json]]:
    by_type: dict[str, list[Json]] = {}
    for entry in sent["entry"]:
        by_type.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    return by_type


def report_of(sent: Json) -> Json:
    (report,) = resources(sent)["DiagnosticReport"]
    return report


def test_it_is_valid_and_comes_back_the_same() -> None:
    sent = json.loads(json.dumps(written()))
    read_back = json.loads(Bundle.model_validate(sent).model_dump_json())
    assert read_back == sent
    assert {kind: len(found) for kind, found in resources(sent).items()} == {
        "DiagnosticReport": 1,
        "Observation": 3,
        "Device": 1,
        "Provenance": 1,
        "OperationOutcome": 1,
    }


def test_the_report() -> None:
    report = report_of(written())
    assert report["status"] == "preliminary"
    assert report["subject"] == {"reference": example()["entry"][0]["fullUrl"]}
    assert report["effectiveDateTime"] == "2026-03-12T09:15:00+01:00"
    assert report["issued"] == "2026-03-12T09:30:00Z"
    assert report["conclusion"].startswith("Alzheimer's disease. Research use only.")
    assert [one["code"] for one in report["conclusionCode"][0]["coding"]] == ["26929004", "AD"]
    text, claims = report["presentedForm"]
    assert b64decode(text["data"]).decode() == RATIONALE
    assert json.loads(b64decode(claims["data"]))[0]["verdict"] == "supported"
    assert {one["url"]: [value for key, value in one.items() if key != "url"] for one in report["extension"]} == {
        f"{EXTENSION}:answered-by": ["student"],
        f"{EXTENSION}:routing": ["student confident: 0.70 >= 0.60"],
        f"{EXTENSION}:degraded": [False],
        f"{EXTENSION}:refer": [False],
    }


def test_every_reference_inside_the_answer_has_an_entry() -> None:
    sent = written()
    own = {entry["fullUrl"] for entry in sent["entry"]}
    provenance, report = resources(sent)["Provenance"][0], report_of(sent)
    inner = [*report["result"], *provenance["target"], provenance["agent"][0]["who"]]
    assert len(inner) == 3 + 4 + 1
    assert {one["reference"] for one in inner} <= own
    assert [one["what"]["reference"] for one in provenance["entity"]] == [one["fullUrl"] for one in example()["entry"]]


def test_observations_of_probabilities_of_the_set_and_of_grades() -> None:
    probabilities, admitted, grades = resources(written())["Observation"]
    assert [one["valueQuantity"]["value"] for one in probabilities["component"]] == [0.7, 0.25, 0.05]
    assert probabilities["component"][1]["code"]["coding"][0]["code"] == "386805003"
    assert probabilities["method"]["text"].endswith("log-probabilities, calibrated")
    assert [one.get("valueBoolean") for one in admitted["component"]] == [True, True, False, None]
    assert admitted["component"][-1]["valueQuantity"]["value"] == 0.9
    assert grades["component"][0]["valueCodeableConcept"]["text"] == "No"


def test_what_the_answer_lacks_the_report_lacks() -> None:
    reading = read_bundle(bundle(patient(), mmse()), TASK, CODES)
    sent = written(
        reading, probabilities=None, prediction_set=None, coverage=None, rationale=None, claims=(), operating_point=None
    )
    report = report_of(sent)
    assert "Observation" not in resources(sent)
    assert not {"result", "presentedForm", "effectiveDateTime"} & set(report)
    assert report["subject"] == {"reference": "Patient/p"}
    (device,) = resources(sent)["Device"]
    assert [one["type"]["text"] for one in device["version"]] == ["software", "prompt", "model"]
    entity = resources(sent)["Provenance"][0]["entity"]
    assert [one["what"] for one in entity] == [{"reference": "Patient/p"}, {"display": "Bundle.entry[1]"}]


def test_an_answer_that_refers_has_no_code_of_a_diagnosis() -> None:
    report = report_of(written(refer=True))
    assert "conclusionCode" not in report
    assert "refer to a clinician" in report["conclusion"]
    assert {"url": f"{EXTENSION}:refer", "valueBoolean": True} in report["extension"]


def test_a_degraded_answer_says_so() -> None:
    report = report_of(written(degraded=True))
    assert "the teacher was not available" in report["conclusion"]
    assert {"url": f"{EXTENSION}:degraded", "valueBoolean": True} in report["extension"]


def test_a_set_without_a_coverage() -> None:
    assert "dataAbsentReason" in resources(written(coverage=None))["Observation"][1]["component"][-1]


def test_ids_follow_from_the_request_and_that_of_the_device_from_the_versions() -> None:
    first, again, other = written(), written(), written(request_id="request-2")
    assert first == again
    assert first["id"] != other["id"]
    assert resources(first)["Device"] == resources(other)["Device"]
    assert resources(written(model="else"))["Device"][0]["id"] != resources(first)["Device"][0]["id"]


def test_two_clients_that_give_the_same_request_id_get_other_ids() -> None:
    answers = [written(), written(key_id="other"), written(now=NOW + timedelta(milliseconds=1))]
    assert len({answer["id"] for answer in answers}) == 3
    assert len({report_of(answer)["id"] for answer in answers}) == 3


def test_warnings_of_the_bundle_and_of_the_answer_come_along() -> None:
    reading = read_bundle(bundle(patient(gender="other"), mmse(), observation("http://x", "y")), TASK, CODES)
    (told,) = resources(written(reading, warnings=("a scan without a face",)))["OperationOutcome"]
    assert len(told["issue"]) == 3
    assert {one["severity"] for one in told["issue"]} == {"warning"}


@pytest.mark.parametrize("text", ["\x00\x01", "日本語", "<script>", "}\n" * 1000])
def test_any_rationale_can_be_written(text: str) -> None:
    sent = written(rationale=text, claims=())
    assert b64decode(report_of(sent)["presentedForm"][0]["data"]).decode() == text
