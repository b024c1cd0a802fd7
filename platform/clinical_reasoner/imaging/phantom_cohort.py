"""A BIDS dataset of synthetic patients with bodies: the patients of a synthetic cohort, each with a T1-like scan and a
label map of exactly the volumes that were drawn. Never real people, and said so in the dataset itself.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clinical_reasoner.cohort.phantom_mark import SEGMENTER, are_phantoms, mark_phantoms, phantom_id
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_with_severity
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.cubes import nifti_bytes
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters, draw_volumes
from clinical_reasoner.imaging.phantoms import render_phantom
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.records import PatientRow

FIELDS = ("age_years", "sex", "education_years", "marital_status", "mmse", "apoe4_copies")
COLUMNS = ("participant_id", *FIELDS, "diagnosis")
"""Of participants.tsv, under names that the BIDS reader knows."""
DRAWS = 20
"""Draws of a body before it is given up: now and then a head has no room for its volumes."""


@dataclass(frozen=True)
class Phantom:
    """One synthetic patient with a body."""

    participant_id: str
    patient: PatientRow
    """As in the synthetic cohort, with the values that are missing there."""
    volumes: dict[str, float]
    """mm3, by the names of cohort/visits.py REGIONS; the label map has exactly these."""
    labels: np.ndarray
    """int16 [64, 64, 64], FreeSurfer's numbers."""
    t1: np.ndarray
    """uint8 [64, 64, 64]."""
    affine: np.ndarray
    """RAS+, mm; voxels of 3 mm."""


def draw_phantom(population: Population, parameters: PhantomParameters, seed: int, index: int) -> Phantom:
    """Patient `index` of the cohort `seed`, with a body for its age, sex and severity.

    The same two numbers give the same phantom, in any order and process. Raises ValueError when the parameters fit no
    head."""
    for draw in range(1, DRAWS + 1):
        patient, volumes, rng = draw_body(population, parameters, seed, index, draw)
        try:
            labels, t1, affine = render_phantom(volumes, rng)
        except ValueError:
            if draw == DRAWS:
                raise
        else:
            return Phantom(phantom_id(patient.patient_id), patient, volumes, labels, t1, affine)
    raise AssertionError("the last draw raises")


def draw_body(
    population: Population, parameters: PhantomParameters, seed: int, index: int, draw: int = 1
) -> tuple[PatientRow, dict[str, float], np.random.Generator]:
    """The patient, the volumes (mm3) of a body for its age, sex and severity, and what to render it with."""
    patient, _ = draw_with_severity(population, index, seed, {"train": 1.0})
    complete = population.model_copy(update={"missing_share": 0.0})  # the body knows what the table lacks
    whole, severity = draw_with_severity(complete, index, seed, {"train": 1.0})
    if whole.age_years is None or whole.sex is None:
        raise ValueError("a complete patient has age and sex")
    rng = np.random.default_rng([seed, index, draw])
    return patient, draw_volumes(parameters, severity, whole.age_years, whole.sex, rng), rng


def write_phantoms(
    population: Population, parameters: PhantomParameters, seed: int, patients: int, folder: Path
) -> None:
    """Write the dataset; participants.tsv comes last, so that a dataset that was not finished cannot be read.

    Raises UserError when the folder holds anything but phantoms of an earlier time, which are replaced.
    """
    _clear(folder)
    derivatives = folder / "derivatives" / SEGMENTER
    derivatives.mkdir(parents=True, exist_ok=True)
    made_by = {"Name": SEGMENTER, "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": SEGMENTER}]}
    (derivatives / "dataset_description.json").write_text(json.dumps(made_by, indent=2) + "\n", encoding="utf-8")
    rows = []
    with ProgressBar("phantoms", patients) as bar:
        for index in range(patients):
            phantom = draw_phantom(population, parameters, seed, index)
            for place, ending, voxels in ((folder, "T1w", phantom.t1), (derivatives, "dseg", phantom.labels)):
                file = place / phantom.participant_id / "anat" / f"{phantom.participant_id}_{ending}.nii.gz"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(nifti_bytes(voxels, phantom.affine))
            rows.append(_participant(phantom))
            bar.update(index + 1)
    with (folder / "participants.tsv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _clear(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if not are_phantoms(folder):
            raise UserError(f"output {str(folder)!r} holds something else than phantoms; give a new folder")
        (folder / "participants.tsv").unlink(missing_ok=True)
        for old in (*folder.glob("sub-SYN*"), *(folder / "derivatives" / SEGMENTER).glob("sub-SYN*")):
            shutil.rmtree(old)
    folder.mkdir(parents=True, exist_ok=True)
    mark_phantoms(folder)


def _participant(phantom: Phantom) -> dict[str, str]:
    values = {name: getattr(phantom.patient, name) for name in FIELDS}
    known = {name: "n/a" if value is None else str(value) for name, value in values.items()}
    return {"participant_id": phantom.participant_id, **known, "diagnosis": phantom.patient.label or "n/a"}
