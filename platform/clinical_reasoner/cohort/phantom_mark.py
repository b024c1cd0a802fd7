"""How phantoms are named, and how a dataset of them says that its people are not real."""

from __future__ import annotations

import json
from pathlib import Path

DESCRIPTION = "dataset_description.json"
PHANTOM_TOOL = "clinical-reasoner phantoms"
SEGMENTER = "phantom"
"""Of label maps that were drawn, not segmented; and the folder of theirs below derivatives/."""
_LARGEST_BYTES = 2**20


def phantom_id(patient_id: str) -> str:
    """A patient of a synthetic cohort as BIDS names it."""
    return f"sub-{patient_id.replace('-', '')}"


def mark_phantoms(folder: Path) -> None:
    """Write the description of a BIDS dataset of phantoms."""
    description = {
        "Name": "Synthetic phantoms. These are not real people: every difference between them was put in.",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "CC0",
        "GeneratedBy": [{"Name": PHANTOM_TOOL}],
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def are_phantoms(folder: Path) -> bool:
    """Whether a folder is such a dataset."""
    file = folder / DESCRIPTION
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            return False
        made_by = json.loads(file.read_text(encoding="utf-8"))["GeneratedBy"]
        return any(one["Name"] == PHANTOM_TOOL for one in made_by)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
