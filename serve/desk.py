"""Everything that answers a request, in one place: panel, engines, limits, access, records, meters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.serving.audit import input_hmac
from clinical_reasoner.serving.case import example_requests
from clinical_reasoner.serving.fhir_codes import FhirCodes
from clinical_reasoner.serving.panel import Engine, Panel
from clinical_reasoner.serving.schema import AnsweredBy, DiagnoseRequest, request_model
from serve.access import Door
from serve.recording import Recorder
from serve.scans import ScanRoom
from serve.telemetry import Meters


@dataclass
class Desk:
    """One for each replica of the HTTP side."""

    panel: Panel
    """Replaced as a whole when the operating point changes; a request keeps the one that it began with."""
    engines: Mapping[AnsweredBy, Engine]
    limits: ServingConfig
    example: Exemplar
    """For the documentation, which everybody can read: no patient."""
    door: Door
    recorder: Recorder
    meters: Meters
    scans: ScanRoom
    codes: FhirCodes | None
    """None leaves `/fhir` out."""
    norms: Norms
    """Of the run, for volumes that are sent; empty where the run has none."""
    cut_points: tuple[float, ...]
    audit_key: bytes = field(repr=False)
    """Of the hash of an input in the audit record."""
    warm: bool = False
    """Whether the engines have answered once."""
    body_model: type[DiagnoseRequest] = field(init=False)
    places: asyncio.Semaphore = field(init=False)
    """Of patients in work."""

    def __post_init__(self) -> None:
        self.body_model = request_model(self.panel.task, self.limits.max_description_chars)
        self.places = asyncio.Semaphore(self.limits.max_ongoing_requests)

    def examples(self) -> dict[str, Any]:
        """Bodies for the documentation and the page, by name."""
        return example_requests(self.body_model, self.example, self.panel.task)

    def input_hmac(self, body: BaseModel, files: Iterable[str] = ()) -> str:
        """Of the audit record. `files`: digests of what was sent beside the body."""
        return input_hmac(body, self.audit_key, files)
