"""Bundles for the tests: the example of the documentation, and small ones of one patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinical_reasoner.serving.fhir_codes import read_codes
from clinical_reasoner.serving.fhir_reading import BundleReading, read_bundle
from clinical_reasoner.serving.schema import request_model
from clinical_reasoner.task import load_task

TASK = load_task("configs/tasks/alzheimers.yaml")
CODES = read_codes("configs/serving/fhir_codes.yaml", TASK)
MODEL = request_model(TASK, max_description_chars=1000)
EXAMPLE = Path("configs/serving/fhir_example.json")
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
FINDING, MEASURE = CODES.finding_system, CODES.measure_system
Json = dict[str, Any]


def example() -> Json:
    bundle: Json = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return bundle


def coded(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def quantity(value: Any, unit: str) -> Json:
    return {"value": value, "system": UCUM, "code": unit}


def patient(**elements: Any) -> Json:
    return {"resourceType": "Patient", "id": "p", **elements}


def observation(system: str, code_: str, **elements: Any) -> Json:
    """About `patient()`, unless it says otherwise."""
    about = {"status": "final", "code": coded(system, code_), "subject": {"reference": "Patient/p"}}
    return {"resourceType": "Observation", **about, **elements}


def mmse(value: Any = 24, when: str | None = None, **elements: Any) -> Json:
    dated = {"effectiveDateTime": when} if when else {}
    return observation(LOINC, "72106-8", **{"valueQuantity": quantity(value, "{score}"), **dated, **elements})


def measured(name: str, value: float, unit: str = "mm3", segmenter: str | None = "fs", **elements: Any) -> Json:
    method = {"method": coded(CODES.segmenter_system, segmenter)} if segmenter else {}
    return observation(MEASURE, name, valueQuantity=quantity(value, unit), **{**method, **elements})


def bundle(*resources: Json, **elements: Any) -> Json:
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries, **elements}


def read(*resources: Json, **elements: Any) -> BundleReading:
    return read_bundle(bundle(*resources, **elements), TASK, CODES)


def fields(reading: BundleReading) -> Json:
    known: Json = reading.body["patient"]
    return known
