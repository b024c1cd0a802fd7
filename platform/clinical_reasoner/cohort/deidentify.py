"""De-identification: pseudonyms by a keyed hash, ages of 90 and more as one, faces in scans.

No date is ever carried into a Visit. Rules follow the safe-harbour list of the HIPAA privacy rule (45 CFR 164.514(b)).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.errors import UserError

TOP_AGE = 90.0
"""Years; written for every age from here on, with `at_least`, so that it is described as 90 or older. A person of 89.3
years is 89 years old, and not 90 or older."""
KEY_VARIABLE = "CLINICAL_REASONER_ID_KEY"
FEWEST_KEY_BYTES = 32
"""Hexadecimal text of 128 bits; `openssl rand -hex 32` writes twice that."""
_FEWEST_DIFFERENT_BYTES = 8
PSEUDONYM_LENGTH = 16
"""Base32 characters, 80 bits: in a million people, two share one with a probability below 1e-12."""
_PLAIN_VISIT = re.compile(r"(?:ses-?)?(?:bl|baseline|sc|screening|[mvyw]?\d{1,3})|d\d{1,4}", re.IGNORECASE)
"""Visit ids that tell nothing but the order; any other may hold a date or the person's id."""
TISSUE_SHARE = 0.3
"""Of the brain's median intensity; air and its noise stay below, skin, fat and muscle above."""
FACE_MM3 = 3000.0
"""Less tissue than that in front of and below the brain is no nose."""
_FRONT_MARGIN_MM = 5.0
_LOWER_SHARE = 0.4
_CRANIUM_MM = (20.0, 80.0)
_FEWEST_MM2 = 100.0


def load_key(cohort: Path, key_file: Path | None = None, variable: str = KEY_VARIABLE) -> bytes:
    """The key of pseudonyms, from a file outside the cohort's folder, else from an environment variable.

    Raises UserError, without the key, when it is missing, short, or in the folder that it protects.
    """
    if key_file is None:
        text, place = os.environ.get(variable, "").encode(), f"environment variable {variable}"
    else:
        folder = (cohort if cohort.is_dir() else cohort.parent).resolve()
        if key_file.resolve().is_relative_to(folder):
            raise UserError(
                f"key file {key_file}: inside the cohort folder; whoever has the data must not have the key"
            )
        try:
            text, place = key_file.read_bytes(), f"key file {key_file}"
        except OSError as error:
            raise UserError(f"key file {key_file}: not readable ({type(error).__name__})") from error
    key = text.strip()
    fix = "write one with `openssl rand -hex 32` and keep it apart from the data"
    if not key:
        raise UserError(f"{place}: no key to replace ids with; {fix}")
    if len(key) < FEWEST_KEY_BYTES or len(set(key)) < _FEWEST_DIFFERENT_BYTES:
        raise UserError(f"{place}: the key is too short or too plain to keep ids secret; {fix}")
    return key


def pseudonym(patient_id: str, key: bytes) -> str:
    """The same 16 letters and digits for the same person in every table; only the key's holder can link them to the id.

    HMAC-SHA256 (RFC 2104) of the id as text, blanks around it left out; `7` and `007` are two people.
    """
    return _hash("id", patient_id.strip(), key)


def cap_age(age_years: float | None) -> float | None:
    """The age; exactly TOP_AGE for every age of 90 years and more."""
    return TOP_AGE if age_years is not None and age_years >= TOP_AGE else age_years


def deidentify_visit(visit: Visit, key: bytes, keep_paths: bool = False) -> Visit:
    """The visit with a pseudonym, a capped age and, unless they are kept for measuring, no paths, which hold ids.

    A visit id that tells more than an order is replaced as well. Where the age is capped or a lower bound, so is the id
    of any visit but the first, as `m84` and the age at baseline tell how old the person is; and where it is capped, so
    is the time from baseline.
    """
    age, years = visit.age_years, visit.years_from_baseline
    visit_id = visit.visit_id
    hidden = cap_age(age) == TOP_AGE or "age_years" in visit.at_least
    if not _PLAIN_VISIT.fullmatch(visit_id) or (hidden and years != 0):
        visit_id = _hash("visit", f"{visit.patient_id.strip()}\n{visit_id}", key)
    if age is not None and age > TOP_AGE:
        years = min(years, max(0.0, years - (age - TOP_AGE)))
    changed: dict[str, Any] = {
        "patient_id": pseudonym(visit.patient_id, key),
        "visit_id": visit_id,
        "age_years": cap_age(age),
        "at_least": tuple(dict.fromkeys((*visit.at_least, *["age_years"] * (cap_age(age) == TOP_AGE)))),
        "years_from_baseline": years,
    }
    if not keep_paths:
        changed |= {"image_path": None, "segmentation_path": None}
    return visit.model_copy(update=changed)


def facial_tissue_present(
    t1: NDArray[Any], brain: NDArray[Any] | None, zooms: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> bool:
    """Whether more than FACE_MM3 of tissue stands where a face would: in front of the brain's bounding box and in the
    lower 40 % of its height. A heuristic for a warning, tried on made-up heads alone; it may miss a face that is cut.

    `t1` and `brain` (a mask or label map of the same grid, above 0 in the brain) are in RAS orientation, `zooms` in mm.
    Without a mask, the front is that of the head 20 to 80 mm below its top, and the face is sought below that.
    """
    scan = np.nan_to_num(np.asarray(t1, dtype=np.float32), posinf=0.0, neginf=0.0)
    if scan.ndim != 3 or (brain is not None and np.shape(brain) != scan.shape):
        raise ValueError("the scan is not 3D, or the mask has another shape than the scan")
    if not (scan > 0).any():
        return False
    if brain is not None and (inside := np.asarray(brain) > 0).any():
        tissue = scan > TISSUE_SHARE * max(float(np.median(scan[inside])), 0.0)
        front = np.flatnonzero(inside.any(axis=(0, 2)))[-1]
        heights = np.flatnonzero(inside.any(axis=(0, 1)))
        top_of_face = heights[0] + _LOWER_SHARE * (heights[-1] - heights[0])
    else:
        tissue = scan > TISSUE_SHARE * float(np.percentile(scan[scan > 0], 90))
        top = _last(tissue.sum(axis=(0, 1)) * zooms[0] * zooms[1])
        high, top_of_face = (max(top - depth / zooms[2], 0.0) for depth in _CRANIUM_MM)
        front = _last(tissue[:, :, int(top_of_face) : int(high) + 1].sum(axis=(0, 2)) * zooms[0] * zooms[2])
    behind = int(front + 1 + np.ceil(_FRONT_MARGIN_MM / zooms[1]))
    face = tissue[:, behind:, : int(top_of_face)]
    return float(np.count_nonzero(face)) * float(np.prod(zooms)) > FACE_MM3


def _last(areas_mm2: NDArray[Any]) -> int:
    """The last slice with more tissue than a few noisy voxels; 0 where there is none."""
    return int(max(np.flatnonzero(areas_mm2 > _FEWEST_MM2), default=0))


def _hash(purpose: str, text: str, key: bytes) -> str:
    digest = hmac.new(key, f"{purpose}\n{text}".encode(), hashlib.sha256).digest()
    return base64.b32encode(digest).decode("ascii")[:PSEUDONYM_LENGTH]
