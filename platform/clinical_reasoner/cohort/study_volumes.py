"""SynthSeg's volumes, joined to visits by the name of the scan: by subject and, where it names one, by session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clinical_reasoner.cohort.synthseg import SEGMENTER, read_synthseg_volumes
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import Measure, RejectedRow

_BIDS = re.compile(r"sub-[A-Za-z0-9+]+((?:_[A-Za-z0-9]+-[A-Za-z0-9+]+)*)(?:_[A-Za-z0-9]+)?")
_VOLUME = "mm3"
NO_VISIT = "no visit of the study is of this subject and session"
NO_SESSION = "the row names no session, and the subject has several visits"
TWO_SCANS = "another scan of the same visit is used"


def join_volumes(visits: Sequence[Visit], file: Path) -> tuple[list[Visit], list[RejectedRow]]:
    """The visits, with the volumes of their scan where the table has them, and the rows that belong to none.

    The first column names the scan: the visit's person, or person and visit joined by `_`, with or without BIDS's
    `sub-` and `ses-`, and what else the name of a scan may hold behind a visit. A row without a session belongs to a
    person with one visit alone. Volumes of another segmenter that the visit has are left out: norms are never shared. A
    version of SynthSeg that the visit's files tell stays, as the table tells none.
    Raises StudyFileError for a file that is no such table.
    """
    rejected: list[RejectedRow] = []
    volumes = read_synthseg_volumes(file, rejected)
    by_visit, by_person = _names(visits)
    joined: dict[int, tuple[Measure, ...]] = {}
    for name, scan in volumes.items():
        found = _visits_of(name, by_visit, by_person)
        if len(found) != 1:
            rejected.append(set_aside(scan.place, NO_SESSION if found else NO_VISIT))
        elif found[0] in joined:
            rejected.append(set_aside(scan.place, TWO_SCANS))
        else:
            joined[found[0]] = scan.measures
    return [
        _with_volumes(visit, joined[index]) if index in joined else visit for index, visit in enumerate(visits)
    ], rejected


def _with_volumes(visit: Visit, measures: tuple[Measure, ...]) -> Visit:
    kept = tuple(one for one in visit.measures if one.unit not in (_VOLUME, "1"))
    known = visit.segmenter or ""
    segmenter = known if known.startswith(SEGMENTER) else SEGMENTER
    return visit.model_copy(update={"measures": (*kept, *measures), "segmenter": segmenter})


def _names(visits: Sequence[Visit]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Names of scans -> places of the visits that they may mean: by person and visit, and by person alone."""
    by_visit: dict[str, list[int]] = {}
    by_person: dict[str, list[int]] = {}
    for index, visit in enumerate(visits):
        person = _plain(visit.patient_id)
        by_person.setdefault(person, []).append(index)
        by_visit.setdefault(f"{person}_{_plain(visit.visit_id)}", []).append(index)
    return by_visit, by_person


def _visits_of(name: str, by_visit: dict[str, list[int]], by_person: dict[str, list[int]]) -> list[int]:
    plain = _plain(name)
    ends = [match.start() for match in re.finditer("_", plain)]
    for end in (len(plain), *reversed(ends)):
        if plain[:end] in by_visit:
            return by_visit[plain[:end]]
    bids = _BIDS.fullmatch(name)
    if bids and "_ses-" not in bids[1]:
        plain = _plain(name.split("_")[0])
    return by_person.get(plain, [])


def _plain(name: str) -> str:
    """Without BIDS's `sub-` and `ses-`."""
    return name.strip().removeprefix("sub-").removeprefix("ses-").replace("_ses-", "_")
