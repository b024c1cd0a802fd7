"""The reader of each kind of study, chosen by configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinical_reasoner.cohort.adni import read_adni
from clinical_reasoner.cohort.aibl import read_aibl
from clinical_reasoner.cohort.bids import read_bids
from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.freesurfer import read_freesurfer
from clinical_reasoner.cohort.mapped import read_mapped
from clinical_reasoner.cohort.nacc import read_nacc
from clinical_reasoner.cohort.oasis1 import read_oasis1
from clinical_reasoner.cohort.oasis2 import read_oasis2
from clinical_reasoner.cohort.oasis3 import read_oasis3
from clinical_reasoner.cohort.phantom_mark import are_phantoms
from clinical_reasoner.cohort.remote import local_copy
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.config.cohort import SYNTHETIC_PREFIX, StudyCohort
from clinical_reasoner.records import RejectedRow


def read_visits(cohort: StudyCohort) -> Iterator[Visit | RejectedRow]:
    """Every visit of the study's files under the configured name of the cohort, and the rows that cannot be used. The
    name of a dataset of phantoms says that its people are synthetic.

    Raises StudyFileError, or UserError for a mapping that contradicts itself, when the files cannot be used as a whole.
    """
    path = local_path(cohort.path)
    name = f"{SYNTHETIC_PREFIX}-{cohort.name}" if are_phantoms(path) else cohort.name
    for found in _reader(cohort, path):
        yield found.model_copy(update={"cohort": name}) if isinstance(found, Visit) else found


def local_path(text: str) -> Path:
    """The path of study files; of an `s3://` address that of its copy on this machine. Raises StudyFileError for other
    addresses."""
    if text.startswith("s3://"):
        return local_copy(text)
    if "://" in text:
        raise StudyFileError(f"cohort: {text!r} is an address; give s3://bucket/folder, or a folder of this machine")
    return Path(text).expanduser()


def _reader(cohort: StudyCohort, path: Path) -> Iterator[Visit | RejectedRow]:
    if cohort.kind == "bids":
        return read_bids(path, cohort.columns, cohort.name)
    if cohort.kind == "freesurfer":
        covariates = local_path(cohort.covariates) if cohort.covariates else None
        return read_freesurfer(path, covariates, cohort.columns, cohort.name)
    if cohort.mapping is not None:
        return read_mapped(path, cohort.mapping, cohort.name)
    readers = {
        "adni": read_adni,
        "aibl": read_aibl,
        "oasis1": read_oasis1,
        "oasis2": read_oasis2,
        "oasis3": read_oasis3,
        "nacc": read_nacc,
    }
    return readers[cohort.kind](path)
