"""Where patients come from, how they are split, and how their measures are graded."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.columns import TableMapping, UsualColumns

StudyKind = Literal["adni", "aibl", "oasis1", "oasis2", "oasis3", "nacc", "bids", "freesurfer", "mapped"]
VisitChoice = Literal["baseline", "all", "last"]
"""Which visits of a longitudinal cohort are used."""

SYNTHETIC_PREFIX = "synthetic"
"""Starts the name of every population that patients are drawn from, and that of no other cohort."""


def _descending(cut_points: tuple[float, ...]) -> tuple[float, ...]:
    if not all(above > below for above, below in pairwise(cut_points)):
        raise ValueError("must descend, each below the one before it")
    return cut_points


def _not_synthetic(name: str) -> str:
    if name.lower().startswith(SYNTHETIC_PREFIX):
        raise ValueError(f"must not start with {SYNTHETIC_PREFIX!r}, which marks patients that were drawn")
    return name


CutPoints = Annotated[tuple[float, ...], AfterValidator(_descending)]
"""Descending w-scores between the grades of the task: the first grade above the first, the last grade at or below the
last."""


class SplitShares(StrictConfig):
    train: float = Field(default=0.6, gt=0, lt=1)
    """Share of the people for training, before rounding by chance; the three are scaled to add up to 1."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the people for choosing among settings, such as the epoch of a student and the endpoint's operating
    point."""
    test: float = Field(default=0.3, gt=0, lt=1)
    """Share of the people for the final comparison; nothing is ever chosen on them."""


class SyntheticCohort(StrictConfig):
    kind: Literal["synthetic"]
    population: str
    """Population file with the distributions, e.g. `configs/cohort/population_clinic.yaml`."""
    patients: int = Field(ge=10)
    """Number of synthetic patients."""
    seed: int = Field(ge=0)
    """Cohort seed; use another than that of the reference models' training text."""
    splits: SplitShares = SplitShares()
    phantoms: str | None = None
    """File with the distributions of regional volumes, e.g. `configs/cohort/phantom.yaml`: every patient gets a body, a
    T1-like scan and a label map in `scans/` of the run folder, and MRI findings come from what is measured there. None
    draws w-scores instead."""


class DeidentifyConfig(StrictConfig):
    ids: Literal["pseudonym", "keep"] = "pseudonym"
    """`pseudonym`: every id becomes a keyed hash, the same in every run with the same key. `keep` is for ids that are
    pseudonyms already."""
    key_file: str | None = None
    """File with the key, outside of the study's folder; None takes it from the environment variable
    CLINICAL_REASONER_ID_KEY."""
    ages: bool = True
    """Ages from 90 years on become 90 or older; without an age to compare by, their MRI is not graded by w-scores."""
    notes: Literal["drop", "redact", "keep"] = "drop"
    """Free text (`note` of a mapped table): left out; kept with names, dates, numbers and the like replaced by their
    kind, which takes the extra `deidentify`; or kept as it is."""
    language: str = Field(default="en", min_length=2)
    """Language of the notes, ISO 639-1."""
    spacy_model: str = Field(default="en_core_web_lg", min_length=1)
    """spaCy model that finds names and places in them: an installed package or a folder."""


class TableCohort(StrictConfig):
    kind: Literal["table"]
    path: str
    """CSV or Parquet, one row per visit, columns named like the `patients` table; a column named like a finding of the
    task holds a grade (`No`, `Mild`, `Severe`) or a w-score in residual SD. In every such column a negative w-score is
    more affected, also in those of the ventricles and of vascular signs."""
    name: Annotated[str, AfterValidator(_not_synthetic)]
    """Name of the cohort in tables and reports."""
    deidentify: DeidentifyConfig = DeidentifyConfig(ids="keep")
    """Ids of one's own table are taken for pseudonyms already, unless `ids` says otherwise."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split."""
    splits: SplitShares = SplitShares()


class StudyCohort(StrictConfig):
    kind: StudyKind
    """Whose files they are; `mapped` is any table, described by `mapping`."""
    path: str
    """Folder (adni, aibl, oasis3, bids, freesurfer) or file (oasis1, oasis2, nacc, mapped) as it was downloaded."""
    name: Annotated[str, AfterValidator(_not_synthetic)]
    """Name of the cohort in tables and reports."""
    visits: VisitChoice = "baseline"
    """Which visits of each person are used: the earliest, all, or the last."""
    mapping: TableMapping | None = None
    """Which column is which field, in which unit and with which codes; for kind mapped."""
    columns: UsualColumns | None = None
    """Columns of participants.tsv and sessions.tsv (bids) or of the covariates (freesurfer) with other names or codes
    than the usual ones."""
    covariates: str | None = None
    """Table beside the subject folders; for kind freesurfer."""
    volumes: str | None = None
    """Table of SynthSeg (`--vol`). Its volumes take the place of those that the study's own files tell."""
    deidentify: DeidentifyConfig = DeidentifyConfig()
    seed: int = Field(default=0, ge=0)
    """Seed of the split."""
    splits: SplitShares = SplitShares()

    @model_validator(mode="after")
    def _only_what_the_kind_reads(self) -> StudyCohort:
        for name, kinds in (
            ("mapping", ("mapped",)),
            ("columns", ("bids", "freesurfer")),
            ("covariates", ("freesurfer",)),
        ):
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(f"{name} is for kind {' or '.join(kinds)}, not for {self.kind!r}; remove it")
        if self.kind == "mapped" and self.mapping is None:
            raise ValueError("kind 'mapped' needs a mapping: which column is which field")
        return self


CohortConfig = Annotated[SyntheticCohort | TableCohort | StudyCohort, Field(discriminator="kind")]


class EvidenceConfig(StrictConfig):
    cut_points: CutPoints = (-1.0, -2.0)
    """Descending w-scores between the grades of the task: No above the first, the last grade at or below the last."""
    norms: str | None = None
    """File of norms (JSON, as a run leaves it in `findings/norms.json`); None fits them on the controls of the training
    split."""
    fewest_controls: int = Field(default=50, ge=10)
    """Fewest controls of one segmenter and field strength for a norm to be fitted; with fewer nothing is graded by
    it."""
