"""The answer as FHIR: a Bundle of DiagnosticReport, its Observations, Device and Provenance.

Ids follow from the request id, the API key and the time, as a client chooses the first of them and two may choose the
same; that of the Device follows from the versions.
The report is `preliminary`: nobody has signed it. Where the answer says to refer to a clinician, it has no
conclusionCode: a system that reads codes alone would take it for a diagnosis.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from clinical_reasoner.serving.fhir_codes import FhirCodes
from clinical_reasoner.serving.fhir_outcome import warned
from clinical_reasoner.serving.fhir_reading import BundleReading
from clinical_reasoner.serving.fhir_values import UCUM
from clinical_reasoner.serving.schema import DiagnoseResponse
from clinical_reasoner.task import DiagnosisTask

EXTENSION = "urn:clinical-reasoner:extension"
"""What FHIR has no element for: `EXTENSION:NAME`."""
_NAMESPACE = uuid5(NAMESPACE_URL, "urn:clinical-reasoner")
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_AUTHOR = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_OPERATION = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
Json = dict[str, Any]


@dataclass(frozen=True)
class _Answer:
    """What every resource of an answer is written from."""

    response: DiagnoseResponse
    reading: BundleReading
    codes: FhirCodes
    task: DiagnosisTask
    now: str
    """FHIR instant."""
    origin: str
    """What no other answer has."""

    def id_of(self, name: str) -> UUID:
        return uuid5(_NAMESPACE, f"{self.origin}\n{name}")

    def device_id(self) -> UUID:
        said = self.response
        return uuid5(_NAMESPACE, "\n".join([said.version, said.model, said.prompt_version, said.operating_point or ""]))


def write_report(
    response: DiagnoseResponse,
    reading: BundleReading,
    codes: FhirCodes,
    task: DiagnosisTask,
    now: datetime,
    key_id: str,
) -> Json:
    """A Bundle of type collection; `now` must have a time zone, `key_id` names who asked. Raises pydantic's
    ValidationError where fhir.resources finds it invalid, which would be an error of this module."""
    from fhir.resources.R4B.bundle import Bundle  # slow, and not needed to start

    utc = now.astimezone(UTC)
    origin = "\n".join([response.request_id, key_id, utc.isoformat()])
    answer = _Answer(response, reading, codes, task, f"{utc:%Y-%m-%dT%H:%M:%SZ}", origin)
    observations = [one for one in (_probabilities(answer), _prediction_set(answer), _grades(answer)) if one]
    resources = [
        _report(answer, observations),
        *observations,
        _device(answer),
        _provenance(answer, observations),
        {**warned((*reading.warnings, *response.warnings)), "id": str(answer.id_of("outcome"))},
    ]
    bundle = {
        "resourceType": "Bundle",
        "id": str(answer.id_of("bundle")),
        "type": "collection",
        "timestamp": answer.now,
        "entry": [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in resources],
    }
    Bundle.model_validate(bundle)
    return bundle


def _report(answer: _Answer, observations: list[Json]) -> Json:
    said = answer.response
    sentence = f"{said.diagnosis_text[:1].upper()}{said.diagnosis_text[1:]}."
    refer = ["The models are unsure: refer to a clinician."] if said.refer else []
    degraded = ["Answered by the student alone, as the teacher was not available."] if said.degraded else []
    known = answer.codes.diagnoses.get(said.diagnosis)
    own = _coding(answer.codes.label_system, said.diagnosis)
    coding = [known.model_dump(exclude_none=True), own] if known else [own]
    concluded = {} if said.refer else {"conclusionCode": [{"coding": coding, "text": said.diagnosis_text}]}
    forms = _forms(said)
    return {
        "resourceType": "DiagnosticReport",
        "id": str(answer.id_of("report")),
        "extension": [
            {"url": f"{EXTENSION}:answered-by", "valueCode": said.answered_by},
            {"url": f"{EXTENSION}:routing", "valueString": said.routing},
            {"url": f"{EXTENSION}:degraded", "valueBoolean": said.degraded},
            {"url": f"{EXTENSION}:refer", "valueBoolean": said.refer},
        ],
        "status": "preliminary",
        "code": _concept(answer, "diagnosis", answer.task.title),
        **_about(answer),
        "issued": answer.now,
        **({"result": [_reference(one) for one in observations]} if observations else {}),
        "conclusion": " ".join([sentence, *refer, *degraded, said.research_use_only]),
        **concluded,
        **({"presentedForm": forms} if forms else {}),
    }


def _forms(said: DiagnoseResponse) -> list[Json]:
    """The rationale, and the claims in it with the judgement of each."""
    if said.rationale is None:
        return []
    forms = [("text/plain; charset=utf-8", "Rationale", said.rationale)]
    if said.claims:
        claims = json.dumps([claim.model_dump() for claim in said.claims], ensure_ascii=False)
        forms.append(("application/json", "Claims of the rationale, compared with what is known", claims))
    return [
        {"contentType": kind, "title": title, "data": b64encode(text.encode()).decode("ascii")}
        for kind, title, text in forms
    ]


def _probabilities(answer: _Answer) -> Json | None:
    said = answer.response
    if said.probabilities is None:
        return None
    method = "calibrated" if said.calibrated else "not calibrated"
    components = [
        {"code": _label(answer, name), "valueQuantity": _share(probability)}
        for name, probability in said.probabilities.items()
    ]
    return {
        **_observation(answer, "probabilities", "Probability of each diagnosis"),
        "method": {"text": f"softmax of the option letters' log-probabilities, {method}"},
        "component": components,
    }


def _prediction_set(answer: _Answer) -> Json | None:
    said = answer.response
    if said.prediction_set is None:
        return None
    components: list[Json] = [
        {"code": _label(answer, name), "valueBoolean": name in said.prediction_set} for name in answer.task.label_names
    ]
    coverage = _concept(answer, "coverage", "Share of patients whose diagnosis is in their set")
    if said.coverage is None:
        components.append({"code": coverage, "dataAbsentReason": {"coding": [_coding(_ABSENT, "unknown")]}})
    else:
        components.append({"code": coverage, "valueQuantity": _share(said.coverage)})
    return {
        **_observation(answer, "prediction-set", "Diagnoses that cannot be ruled out"),
        "method": {"text": "split conformal prediction"},
        "component": components,
    }


def _grades(answer: _Answer) -> Json | None:
    """Grades that this software gave to volumes and ratings."""
    if not answer.reading.graded:
        return None
    terms = {finding.name: finding.term for finding in answer.task.findings}
    finding_system, grade_system = answer.codes.finding_system, answer.codes.grade_system
    components = [
        {
            "code": {"coding": [_coding(finding_system, name)], "text": terms[name]},
            "valueCodeableConcept": {"coding": [_coding(grade_system, grade)], "text": grade},
        }
        for name, grade in answer.reading.graded.items()
    ]
    return {**_observation(answer, "grades", "Grades of the regional measures"), "component": components}


def _device(answer: _Answer) -> Json:
    said = answer.response
    versions = {
        "software": said.version,
        "prompt": said.prompt_version,
        "operating point": said.operating_point,
        "model": said.model,
    }
    return {
        "resourceType": "Device",
        "id": str(answer.device_id()),
        "status": "active",
        "deviceName": [
            {"name": "clinical-reasoner", "type": "user-friendly-name"},
            {"name": said.model, "type": "model-name"},
        ],
        "version": [{"type": {"text": kind}, "value": value} for kind, value in versions.items() if value],
        "note": [{"text": said.research_use_only}],
    }


def _provenance(answer: _Answer, observations: list[Json]) -> Json:
    inputs = answer.reading.source.inputs
    targets = [f"urn:uuid:{answer.id_of('report')}", *(f"urn:uuid:{one['id']}" for one in observations)]
    sources = [{"reference": reference} if reference else {"display": place} for reference, place in inputs]
    return {
        "resourceType": "Provenance",
        "id": str(answer.id_of("provenance")),
        "target": [{"reference": target} for target in targets],
        "recorded": answer.now,
        "activity": {"coding": [_coding(_OPERATION, "CREATE", "create")]},
        "agent": [
            {
                "type": {"coding": [_coding(_AUTHOR, "author", "Author")]},
                "who": {"reference": f"urn:uuid:{answer.device_id()}"},
            }
        ],
        "entity": [{"role": "source", "what": source} for source in sources],
    }


def _observation(answer: _Answer, name: str, text: str) -> Json:
    return {
        "resourceType": "Observation",
        "id": str(answer.id_of(name)),
        "status": "preliminary",
        "code": _concept(answer, name, text),
        **_about(answer),
        "device": {"reference": f"urn:uuid:{answer.device_id()}"},
    }


def _about(answer: _Answer) -> Json:
    """Whom and when it is about."""
    source = answer.reading.source
    when = {"effectiveDateTime": source.effective} if source.effective else {}
    return {"subject": {"reference": source.patient}, **when}


def _label(answer: _Answer, name: str) -> Json:
    known = answer.codes.diagnoses.get(name)
    coding = [known.model_dump(exclude_none=True)] if known else []
    return {"coding": [*coding, _coding(answer.codes.label_system, name)], "text": answer.task.label(name).text}


def _concept(answer: _Answer, code: str, text: str) -> Json:
    return {"coding": [_coding(answer.codes.answer_system, code)], "text": text}


def _coding(system: str, code: str, display: str | None = None) -> Json:
    return {"system": system, "code": code, **({"display": display} if display else {})}


def _share(value: float) -> Json:
    """A number from 0 to 1; seven decimals, as FHIR's decimals have no exponent in every reader."""
    return {"value": round(value, 7), "system": UCUM, "code": "1"}


def _reference(resource: Mapping[str, Any]) -> Json:
    return {"reference": f"urn:uuid:{resource['id']}"}
