"""CapabilityStatement: what the FHIR side of the endpoint offers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from clinical_reasoner import __version__
from clinical_reasoner.serving.fhir_resources import MOST_ENTRIES, TYPES
from clinical_reasoner.serving.schema import RESEARCH_USE_ONLY

FHIR_MEDIA_TYPE = "application/fhir+json"
FHIR_VERSION = "4.0.1"


def capabilities(started: datetime) -> dict[str, Any]:
    """`started`, with a time zone, is when this instance began to offer it."""
    how = (
        f"POST a Bundle of type {' or '.join(TYPES)} with one Patient and its Observations, at most {MOST_ENTRIES} "
        "entries; query parameter model: auto, student or teacher. Returns a Bundle with a DiagnosticReport, its "
        "Observations, Device, Provenance and an OperationOutcome with warnings."
    )
    operation = {"name": "diagnose", "definition": "urn:clinical-reasoner:operation:diagnose", "documentation": how}
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "experimental": True,
        "date": started.isoformat(timespec="seconds"),
        "kind": "instance",
        "software": {"name": "clinical-reasoner", "version": __version__},
        "implementation": {"description": f"Diagnosis endpoint. {RESEARCH_USE_ONLY}"},
        "fhirVersion": FHIR_VERSION,
        "format": ["json", FHIR_MEDIA_TYPE],
        "rest": [{"mode": "server", "operation": [operation]}],
    }
