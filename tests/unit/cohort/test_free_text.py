"""Free text: what Presidio finds is replaced by its kind, and nothing is read that cannot be scanned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import spacy

from clinical_reasoner.cohort.deidentify import KEY_VARIABLE
from clinical_reasoner.cohort.free_text import redact
from clinical_reasoner.config.cohort import StudyCohort
from clinical_reasoner.errors import UserError
from clinical_reasoner.task import DiagnosisTask
from tests.unit.cohort.fixtures.collected import read_study

NOTE = "Seen on 03/05/2019, write to j.smith@example.org or call 212-555-0187. Forgets names."
REDACTED = "Seen on <DATE_TIME>, write to <EMAIL_ADDRESS> or call <PHONE_NUMBER>. Forgets names."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A spaCy model that knows no names: what Presidio finds by patterns remains."""
    folder = tmp_path_factory.mktemp("spacy") / "blank"
    spacy.blank("en").to_disk(folder)
    return str(folder)


def cohort(folder: Path, **deidentify: Any) -> StudyCohort:
    (folder / "table.csv").write_text(f'id,age,dx,text\n1,70,AD,"{NOTE}"\n2,71,NC,\n', encoding="utf-8")
    columns = {"patient_id": "id", "age_years": "age", "label": "dx", "note": "text"}
    mapping = {name: {"columns": [column]} for name, column in columns.items()}
    settings = {"kind": "mapped", "path": str(folder / "table.csv"), "name": "own", "mapping": mapping}
    return StudyCohort.model_validate(settings | {"deidentify": deidentify})


def notes(study: StudyCohort, task: DiagnosisTask) -> set[str | None]:
    patients, _ = read_study(study, task, {"train": 1.0})
    return {patient.note for patient in patients}


def test_identifiers_become_their_kind(model: str) -> None:
    assert redact(NOTE, "en", model) == REDACTED
    assert redact("Forgets names.", "en", model) == "Forgets names."


def test_notes_are_left_out_unless_they_are_asked_for(
    tmp_path: Path, model: str, task: DiagnosisTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdef" * 2)
    assert notes(cohort(tmp_path), task) == {None}
    assert notes(cohort(tmp_path, notes="keep"), task) == {None, NOTE}
    assert notes(cohort(tmp_path, notes="redact", spacy_model=model), task) == {None, REDACTED}


def test_what_cannot_be_scanned_is_said_before_anything_is_read(
    tmp_path: Path, task: DiagnosisTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdef" * 2)
    study = cohort(tmp_path, notes="redact", spacy_model="xx_not_there")
    with pytest.raises(UserError, match="python -m spacy download xx_not_there") as error:
        notes(study, task)
    assert "smith" not in str(error.value)
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"extra `deidentify`: pip install 'clinical-reasoner\[deidentify\]'"):
        notes(cohort(tmp_path, notes="redact", spacy_model="xx_other"), task)
