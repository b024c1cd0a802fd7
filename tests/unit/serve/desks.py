"""A desk over engines that are plain objects; everything else on it is real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.llm.prompting import load_exemplars
from clinical_reasoner.serving.audit_files import audit_places
from clinical_reasoner.serving.audit_log import AuditLog
from clinical_reasoner.serving.fhir_codes import read_codes
from clinical_reasoner.serving.panel import Engine, Panel
from clinical_reasoner.serving.schema import AnsweredBy
from clinical_reasoner.serving.uploads import UploadRules
from serve.access import Door
from serve.desk import Desk
from serve.recording import Recorder
from serve.scans import ScanRoom
from serve.telemetry import Meters

CUT_POINTS = (-1.5, -2.5)
"""Of w-scores, one fewer than the task has grades."""


def plain_desk(panel: Panel, engines: Mapping[AnsweredBy, Engine], folder: Path, **limits: Any) -> Desk:
    """Without API keys and norms; audit records go below `folder`."""
    config = ServingConfig(**limits)
    rules = UploadRules(task=panel.task, cut_points=CUT_POINTS, limits=config.uploads)
    return Desk(
        panel=panel,
        engines=engines,
        limits=config,
        example=load_exemplars(panel.task.exemplars, panel.task)[0],
        door=Door(config, None),
        recorder=Recorder(AuditLog(audit_places(config.audit, str(folder)), config.audit)),
        audit_key=bytes(32),
        meters=Meters(),
        scans=ScanRoom(rules),
        codes=read_codes(config.fhir_codes, panel.task),
        norms=rules.norms,
        cut_points=CUT_POINTS,
    )
