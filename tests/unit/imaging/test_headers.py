"""Headers of scans: what they may claim, and that a damaged one is read or refused and nothing else."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinical_reasoner.imaging.headers import HEADER_BYTES, MOST_VOXELS
from clinical_reasoner.imaging.scans import ScanError, open_label_map, open_volume
from tests.unit.imaging.images import AFFINE, header_of, labels, reason, write

nib: Any = nibabel  # typed in part


def with_voxel(*lengths: float) -> np.ndarray:
    return np.diag([*lengths, 1.0])


@pytest.mark.parametrize(
    ("affine", "why"),
    [
        (with_voxel(4.1, 4.1, 4.1), "not 0.2 to 4 mm"),
        (with_voxel(1, 1, 5), "not 0.2 to 4 mm"),
        (with_voxel(0.1, 1, 1), "not 0.2 to 4 mm"),
        (with_voxel(0.3, 0.3, 3.5), "more than 10 times"),
        (with_voxel(1e-3, 1e-3, 1e-3), "not 0.2 to 4 mm"),
        (with_voxel(1e30, 1e30, 1e30), "not finite or far off"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_geometry(tmp_path: Path, affine: np.ndarray, why: str) -> None:
    file = tmp_path / "a.nii"
    content = header_of(labels(), srow_x=affine[0], srow_y=affine[1], srow_z=affine[2], sform_code=1)
    file.write_bytes(content)
    assert why in reason(file)


@pytest.mark.parametrize("voxel", [(4.0, 4.0, 4.0), (0.4, 0.4, 3.9), (0.2, 0.2, 0.2)])
def test_geometry_at_its_bounds(tmp_path: Path, voxel: tuple[float, float, float]) -> None:
    scan = open_label_map(write(tmp_path / "a.nii", affine=with_voxel(*voxel)), None)
    assert scan.zooms_mm == pytest.approx(voxel)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"sform_code": 0, "qform_code": 0}, "tells no orientation"),
        ({"xyzt_units": 1}, "not in millimetres"),
        ({"xyzt_units": 3}, "not in millimetres"),
        ({"pixdim": [1, 1.5, 2, 3, 0, 0, 0, 0]}, "affine and its voxel size disagree"),
        ({"pixdim": [1, np.nan, 2, 3, 0, 0, 0, 0]}, "disagree"),
        ({"srow_x": [np.nan] * 4}, "not finite"),
        ({"srow_x": [2, 0, 0, np.inf]}, "not finite"),
        ({"datatype": 1}, "type of voxels"),
        ({"datatype": 12345}, "header cannot be used"),
        ({"datatype": 1536}, "type of voxels"),
        ({"vox_offset": 0}, "header cannot be used"),
        ({"vox_offset": -5}, "header cannot be used"),
        ({"vox_offset": np.nan}, "header cannot be used"),
        ({"vox_offset": np.inf}, "header cannot be used"),
        ({"vox_offset": 1e9}, "header cannot be used"),
        ({"vox_offset": 4000}, "cut off"),
        ({"magic": b"ni1"}, "without its voxels, or Analyze"),
        ({"magic": b""}, "without its voxels, or Analyze"),
        ({"dim": [0, 10, 12, 14, 1, 1, 1, 1]}, "header cannot be used"),
        ({"dim": [768, 10, 12, 14, 1, 1, 1, 1]}, "header cannot be used"),  # 3 in the other byte order
        ({"dim": [3, 10, 12, -14, 1, 1, 1, 1]}, "not a volume"),
        ({"dim": [3, 10, 12, 0, 1, 1, 1, 1]}, "not a volume"),
        ({"dim": [3, -1, 1, 1, 1, 1, 1, 1]}, "header cannot be used"),
        ({"dim": [3, 27307, 1, 6, 1, 1, 1, 1]}, "not a volume"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, f"claims more than {MOST_VOXELS} voxels"),
        ({"dim": [3, 10, 12, 15, 1, 1, 1, 1]}, "cut off"),
        ({"scl_slope": 1.0, "scl_inter": np.inf}, "header cannot be used"),
    ],
)
def test_header(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(header_of(labels(), **fields))
    assert why in reason(file)


@pytest.mark.filterwarnings("error")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 347), junk=st.binary(min_size=1, max_size=8), kind=st.sampled_from(["nii", "mgh"]))
def test_damaged_header_is_read_or_refused(tmp_path: Path, start: int, junk: bytes, kind: str) -> None:
    image = nib.Nifti1Image(labels(), AFFINE) if kind == "nii" else nib.MGHImage(labels().astype(np.int32), AFFINE)
    content = bytearray(image.to_bytes())
    content[start : start + len(junk)] = junk
    file = tmp_path / f"a.{kind}"
    file.write_bytes(content)
    try:
        scan = open_volume(file, None)
    except ScanError:
        return
    assert scan.array.size <= len(content) and np.isfinite(scan.array).all() and 0 < scan.voxel_mm3 < 65


def test_million_voxels_a_side(tmp_path: Path) -> None:
    header = nib.Nifti2Header()
    header.set_data_shape((10**6, 10**6, 10**6))
    header.set_sform(AFFINE, code=1)
    header["vox_offset"] = 544
    plain, packed, mgz = tmp_path / "a.nii", tmp_path / "a.nii.gz", tmp_path / "a.mgz"
    plain.write_bytes(header.binaryblock + bytes(4))
    packed.write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    content = bytearray(nib.MGHImage(labels().astype(np.int32), AFFINE).to_bytes())
    content[4:16] = (10**6).to_bytes(4, "big") * 3
    mgz.write_bytes(gzip.compress(bytes(content)))
    assert {reason(file) for file in (plain, packed, mgz)} == {f"its header claims more than {MOST_VOXELS} voxels"}


def test_mgh_of_a_type_that_there_is_not(tmp_path: Path) -> None:
    content = bytearray(nib.MGHImage(labels().astype(np.int32), AFFINE).to_bytes())
    content[20:24] = (77).to_bytes(4, "big")
    (tmp_path / "a.mgh").write_bytes(content)
    assert reason(tmp_path / "a.mgh") == "its header cannot be used"


def test_header_bytes_hold_every_header() -> None:
    assert nib.Nifti2Header.template_dtype.itemsize == HEADER_BYTES
