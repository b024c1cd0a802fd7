"""A BIDS dataset: participants and sessions tables, T1-weighted scans, and segmentations among the derivatives.

Scans are found here and measured elsewhere. `participants.tsv` tells what does not change; a diagnosis or MMSE there is
that of a visit only where the person has one visit, and an age there is taken as that at the first visit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.bids_files import SESSION, find_files, find_pipelines, find_scan, find_sessions
from clinical_reasoner.cohort.columns import StudyFileError, StudyRow, read_study_table
from clinical_reasoner.cohort.fields import (
    build_visit,
    file_inside,
    read_fields,
    wanted_columns,
    years_of_code,
)
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.config.columns import FieldColumns, UsualColumns
from clinical_reasoner.records import RejectedRow

SECONDS_PER_YEAR = 365.25 * 86400
_PERSON = re.compile(r"sub-[A-Za-z0-9+]+")
_OF_A_VISIT = ("age_years", "mmse", "label", "label_source", "at_least")


@dataclass(frozen=True)
class _Dataset:
    folder: Path
    columns: FieldColumns
    cohort: str
    pipelines: tuple[Path, ...]


def read_bids(folder: Path, columns: FieldColumns | None = None, cohort: str = "bids") -> Iterator[Visit | RejectedRow]:
    """A visit for each session of each participant that has a T1-weighted scan or a segmentation.

    `columns` says which columns of participants.tsv and sessions.tsv are which field; the sessions table goes first.
    Of the folders below derivatives/, FreeSurfer's goes before others. Raises StudyFileError when the folder has no
    participants.tsv that can be read.
    """
    columns = columns or UsualColumns()
    dataset = _Dataset(folder, columns, cohort, find_pipelines(folder))
    wanted = {"participant_id": ("participant_id",), **wanted_columns(columns)}
    stated = set(columns.model_fields_set) & set(wanted)
    if any(folder.glob("sub-*/sub-*_sessions.tsv")):
        stated = set()  # the columns may all be there
    seen: set[str] = set()
    for row in read_study_table(folder / "participants.tsv", wanted, ("participant_id", *sorted(stated))):
        if row.problem is not None:
            yield set_aside(row.place, row.problem)
            continue
        person = _with_prefix(row.text("participant_id"), "sub-")
        if not _PERSON.fullmatch(person):
            yield set_aside(row.place, "participant_id is not sub- with letters and digits")
        elif person in seen:
            yield set_aside(row.place, "the same participant_id as an earlier row")
        else:
            yield from _visits(dataset, row, person)
        seen.add(person)
    for number, path in enumerate(sorted(path for path in folder.glob("sub-*") if path.is_dir()), start=1):
        if path.name not in seen:
            yield set_aside(f"{folder.name}: sub- folder {number} by name", "no row in participants.tsv")


def _with_prefix(text: str | None, prefix: str) -> str:
    """A label with its prefix, which tables may leave out."""
    return text if text and text.startswith(prefix) else f"{prefix}{text or ''}"


def _visits(dataset: _Dataset, row: StudyRow, person: str) -> Iterator[Visit | RejectedRow]:
    try:
        told = read_fields(row, dataset.columns, "participants.tsv")
        rows, unusable = _session_rows(dataset, row, person)
    except ValueError as error:
        yield set_aside(row.place, str(error))
        return
    yield from unusable
    names = sorted(find_sessions(dataset.folder, dataset.pipelines, person) | set(rows))
    if names and find_scan(dataset.folder / person, person, []) is not None:
        yield set_aside(row.place, "a T1-weighted scan beside the folders of the sessions")
    own: dict[str, dict[str, Any] | ValueError] = {}
    for name, session in rows.items():
        try:
            own[name] = read_fields(session, dataset.columns, "sessions.tsv")
        except ValueError as error:
            own[name] = error
    times = _times(names, rows, own)
    sessions: list[str | None] = [*names] or [None]
    for each in sessions:
        place = rows[each].place if each in rows else row.place
        try:
            fields = told if len(sessions) == 1 else _at_visit(told, times.get(each or ""))
            fields = _merged(fields, own.get(each or "", {}))
            yield _visit(dataset, person, each, len(sessions) == 1, place, times.get(each or "", 0.0), fields)
        except ValueError as error:
            yield set_aside(place, str(error))


def _session_rows(dataset: _Dataset, row: StudyRow, person: str) -> tuple[dict[str, StudyRow], list[RejectedRow]]:
    """Session -> row of the person's sessions table, and the rows that name none. They are placed by the participant's
    row, as the file's name holds the person's id. Raises ValueError when the table cannot be read."""
    file = dataset.folder / person / f"{person}_sessions.tsv"
    if not file.exists() and not file.is_symlink():
        return {}, []
    wanted = {"session_id": ("session_id",), "acq_time": ("acq_time",), **wanted_columns(dataset.columns)}
    rows: dict[str, StudyRow] = {}
    unusable = []
    try:
        file_inside(dataset.folder, file)
        for number, one in enumerate(read_study_table(file, wanted, ("session_id",)), start=1):
            place = f"{row.place}, sessions row {number}"
            name = _with_prefix(one.values["session_id"], "ses-")
            if one.problem is not None:
                unusable.append(set_aside(place, one.problem))
            elif not SESSION.fullmatch(name):
                unusable.append(set_aside(place, "session_id is not ses- with letters and digits"))
            elif name in rows:
                unusable.append(set_aside(place, "the same session_id as an earlier row"))
            else:
                rows[name] = StudyRow(place, one.values)
    except StudyFileError as error:
        raise ValueError("the sessions table of this participant is no UTF-8 table with one session_id") from error
    return rows, unusable


def _times(
    names: list[str], rows: Mapping[str, StudyRow], own: Mapping[str, dict[str, Any] | ValueError]
) -> dict[str, float]:
    """Session -> years since the first, where all sessions tell: by acquisition time, by name (`ses-M006`) or by age.
    Only differences of dates are used, so shifted ones do as well."""
    exact = {name: fields for name, fields in own.items() if isinstance(fields, dict) and not fields.get("at_least")}
    ages = {name: fields.get("age_years") for name, fields in exact.items()}
    dates = {name: _seconds(rows[name].text("acq_time")) for name in names if name in rows}
    by_date = {name: None if value is None else value / SECONDS_PER_YEAR for name, value in dates.items()}
    for told in (by_date, {name: years_of_code(name) for name in names}, ages):
        known = {name: years for name, years in told.items() if years is not None}
        if known and len(known) == len(names):
            return {name: years - min(known.values()) for name, years in known.items()}
    return {}


def _seconds(text: str | None) -> float | None:
    try:
        moment = datetime.fromisoformat(text or "").replace(tzinfo=None)
    except ValueError:
        return None
    return (moment - datetime(1, 1, 1)).total_seconds()


def _at_visit(told: dict[str, Any], years: float | None) -> dict[str, Any]:
    """What participants.tsv tells about one of several visits, that many years after the first."""
    fields = {name: value for name, value in told.items() if name not in _OF_A_VISIT}
    if told["age_years"] is not None and years is not None:
        fields |= {"age_years": told["age_years"] + years, "at_least": told.get("at_least", ())}
    return fields


def _merged(told: dict[str, Any], session: dict[str, Any] | ValueError) -> dict[str, Any]:
    """Fields of participants.tsv and, before them, of the session. Raises ValueError when the session's cannot be used,
    or when they tell two sexes."""
    if isinstance(session, ValueError):
        raise session
    if told["sex"] and session.get("sex") and told["sex"] != session["sex"]:
        raise ValueError("sex differs between participants.tsv and the sessions table")
    own = {name: value for name, value in session.items() if value is not None}
    if "age_years" in own:
        own.setdefault("at_least", ())
    return {**told, **own}


def _visit(
    dataset: _Dataset, person: str, session: str | None, only: bool, place: str, years: float, fields: dict[str, Any]
) -> Visit:
    files = find_files(dataset.folder, dataset.pipelines, person, session, only)
    if files.image_path is None and files.segmentation_path is None:
        raise ValueError("no T1-weighted scan and no segmentation")
    strength = fields.get("field_strength_t")
    found = {
        "image_path": files.image_path,
        "segmentation_path": files.segmentation_path,
        "segmenter": files.segmenter,
        "field_strength_t": files.field_strength_t if strength is None else strength,
        "warnings": files.warnings,
    }
    return build_visit(
        **{**fields, **found},
        patient_id=person,
        visit_id=session or "bl",
        cohort=dataset.cohort,
        years_from_baseline=years,
        source=place,
    )
