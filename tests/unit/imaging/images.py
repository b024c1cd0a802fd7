"""Small images in files, good and broken, for the tests of opening scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from clinical_reasoner.imaging.scans import ScanError, open_label_map, open_volume

nib: Any = nibabel  # typed in part
SHAPE = (10, 12, 14)
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2, 0, -12], [0, 0, 3, -14], [0, 0, 0, 1]])


def labels() -> np.ndarray:
    """Label 17 at the left, 53 at the right, 24 in front."""
    array = np.zeros(SHAPE, np.int16)
    array[1:4, 3:9, 5:8] = 17
    array[7:9, 3:9, 5:8] = 53
    array[4:6, 10:12, 1:13] = 24
    return array


def write(file: Path, array: Any = None, affine: Any = AFFINE, kind: Any = nib.Nifti1Image) -> Path:
    nib.save(kind(labels() if array is None else array, affine), file)
    return file


def header_of(array: np.ndarray, **fields: Any) -> bytes:
    """A NIfTI-1 file of `array` whose header holds `fields` instead."""
    content = bytearray(nib.Nifti1Image(array, AFFINE).to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    return bytes(content)


def reason(file: Path, root: Path | None = None) -> str:
    """Of a refusal, which is the same for both kinds of image and names no file."""
    with pytest.raises(ScanError) as refused:
        open_label_map(file, root)
    with pytest.raises(ScanError) as same:
        open_volume(file, root)
    assert str(refused.value) == str(same.value)
    assert str(file.parent) not in str(refused.value) and file.name not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)
