"""Scans as nibabel writes them, and scans that someone crafted: each refused by its header, with a reason."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.imaging.scans import open_volume
from clinical_reasoner.serving import gunzip
from clinical_reasoner.serving.scan import read_label_map, read_scan
from clinical_reasoner.serving.upload_errors import UploadError
from tests.unit.serving.upload_files import AFFINE, LIMITS, SHAPE, kept, nib, nifti, refusal, voxels

REAL = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
HUGE = [3, 30_000, 30_000, 30_000, 1, 1, 1, 1]


def refused(folder: Path, content: bytes, limits: UploadsConfig = LIMITS) -> tuple[int, str]:
    """The same for a scan and a label map, and with little memory taken."""
    file = kept(folder, content)
    tracemalloc.start()
    try:
        with pytest.raises(UploadError) as raised:
            read_scan(file, limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(content) + 2**20
    with pytest.raises(UploadError) as same:
        read_label_map(file, limits)
    assert refusal(same) == refusal(raised)
    assert (raised.value.field, same.value.field) == ("scan", "segmentation")
    return refusal(raised)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", REAL)
def test_every_kind_of_real_number_is_read_plain_and_gzipped(tmp_path: Path, dtype: Any, kind: Any) -> None:
    array = voxels(np.int16) % 100
    content = nifti(array.astype(dtype), kind)
    for sent in (content, gzip.compress(content)):
        scan = read_scan(kept(tmp_path, sent), LIMITS)
        assert np.array_equal(scan.array, array) and np.array_equal(scan.affine, AFFINE)
        assert np.array_equal(read_label_map(kept(tmp_path, sent), LIMITS).array, array)


def test_it_is_read_as_a_batch_run_reads_it(tmp_path: Path) -> None:
    turned = AFFINE[[1, 0, 2, 3]] * [[-1], [1], [1], [1]]
    image = nib.Nifti1Image(voxels(), turned)
    image.header.set_slope_inter(0.5, 7)
    nib.save(image, tmp_path / "scan.nii")
    one, other = read_scan(tmp_path / "scan.nii", LIMITS), open_volume(tmp_path / "scan.nii", None)
    assert np.array_equal(one.array, other.array) and np.array_equal(one.affine, other.affine)


def test_the_other_byte_order_and_extensions_and_a_fourth_axis_of_one_are_read(tmp_path: Path) -> None:
    big = nib.Nifti1Image(voxels(">i2"), AFFINE, nib.Nifti1Header(endianness=">"))
    assert np.array_equal(read_scan(kept(tmp_path, big.to_bytes()), LIMITS).array, voxels())
    extended = nib.Nifti1Image(voxels(), AFFINE)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    assert np.array_equal(read_scan(kept(tmp_path, extended.to_bytes()), LIMITS).array, voxels())
    fourth = nib.Nifti1Image(voxels()[..., None], AFFINE)
    assert np.array_equal(read_scan(kept(tmp_path, fourth.to_bytes()), LIMITS).array, voxels())


CRAFTED = {
    "4-D": (nifti(voxels(shape=(*SHAPE, 3))), 422, "4-D: send one volume"),
    "2-D": (nifti(voxels(shape=(40, 40))), 422, "2-D: not a volume"),
    "complex": (nifti(voxels(np.complex64)), 422, "complex voxels; send real numbers"),
    "complex of 128 bits": (nifti(voxels(np.complex128)), 422, "complex voxels; send real numbers"),
    "RGB": (nifti(datatype=128, bitpix=24), 422, "colour (RGB) voxels; send real numbers"),
    "RGBA": (nifti(datatype=2304, bitpix=32), 422, "colour (RGBA) voxels; send real numbers"),
    "float128": (nifti(datatype=1536, bitpix=128), 422, "voxels of 128 bits; send real numbers"),
    "one bit": (nifti(datatype=1, bitpix=1), 422, "voxels of one bit; send real numbers"),
    "no type": (nifti(datatype=0), 422, "its type of voxels is not supported; send real numbers"),
    "negative type": (nifti(datatype=-4), 422, "its type of voxels is not supported; send real numbers"),
    "two sizes": (nifti(bitpix=64), 422, "its header states two sizes of a voxel"),
    "huge": (nifti(dim=HUGE), 413, "more than 1024 voxels on a side"),
    "many": (nifti(dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]), 413, "more than 40000000 voxels"),
    "negative": (
        nifti(dim=[3, 16, -18, 20, 1, 1, 1, 1]),
        422,
        "its header states a number of voxels that cannot be (dim)",
    ),
    "none": (nifti(dim=[3, 16, 0, 20, 1, 1, 1, 1]), 422, "its header states a number of voxels that cannot be (dim)"),
    "no axes": (
        nifti(dim=[0, 16, 18, 20, 1, 1, 1, 1]),
        422,
        "its header states a number of voxels that cannot be (dim)",
    ),
    "99 axes": (
        nifti(dim=[99, 16, 18, 20, 1, 1, 1, 1]),
        422,
        "its header states a number of voxels that cannot be (dim)",
    ),
    "thin": (nifti(voxels(shape=(4, 18, 20))), 422, "not a volume: fewer than 8 voxels on a side"),
    "offset beyond": (nifti(vox_offset=20_000), 422, "cut off: holds less than its header says"),
    "offset far beyond": (nifti(vox_offset=1e9), 422, "its header places the voxels where they cannot be (vox_offset)"),
    "offset before": (nifti(vox_offset=0), 422, "its header places the voxels where they cannot be (vox_offset)"),
    "offset negative": (nifti(vox_offset=-352), 422, "its header places the voxels where they cannot be (vox_offset)"),
    "offset broken": (nifti(vox_offset=352.5), 422, "its header places the voxels where they cannot be (vox_offset)"),
    "offset NaN": (nifti(vox_offset=np.nan), 422, "its header places the voxels where they cannot be (vox_offset)"),
    "slope": (nifti(scl_slope=np.inf), 422, "the scale of its voxels is not finite (scl_slope, scl_inter)"),
    "inter": (nifti(scl_inter=np.nan), 422, "the scale of its voxels is not finite (scl_slope, scl_inter)"),
    "long voxels": (nifti(pixdim=[1, 2, 11, 2, 1, 1, 1, 1]), 422, "its voxels are not 0.2 to 10 mm long"),
    "no length": (nifti(pixdim=[1, 2, 0, 2, 1, 1, 1, 1]), 422, "its voxels are not 0.2 to 10 mm long"),
    "NaN length": (nifti(pixdim=[1, 2, np.nan, 2, 1, 1, 1, 1]), 422, "its voxels are not 0.2 to 10 mm long"),
    "affine": (nifti(srow_x=[np.nan, 0, 0, 0]), 422, "its affine is not finite or far off"),
    "no place": (nifti(sform_code=0, qform_code=0), 422, "its header tells no orientation"),
    "metres": (nifti(xyzt_units=1), 422, "its header is not in millimetres"),
    "magic": (nifti(magic=b"n+3"), 415, "not a NIfTI file (.nii or .nii.gz)"),
    "pair": (nifti(magic=b"ni1"), 415, "a header without its voxels; send one file (.nii or .nii.gz)"),
    "size": (struct.pack("<i", 349) + nifti()[4:], 415, "not a NIfTI file (.nii or .nii.gz)"),
    "MGH": (nib.MGHImage(voxels(np.int32), AFFINE).to_bytes(), 415, "not a NIfTI file (.nii or .nii.gz)"),
    "text": (b"Zebulon is a beekeeper.", 415, "not a NIfTI file (.nii or .nii.gz)"),
    "nothing": (b"", 415, "not a NIfTI file (.nii or .nii.gz)"),
    "header alone": (nifti()[:300], 422, "cut off in its header"),
    "cut": (nifti()[:-1], 422, "cut off: holds less than its header says"),
    "cut early": (nifti()[:400], 422, "cut off: holds less than its header says"),
    "more": (nifti() + b"\0", 422, "holds more than its header says"),
    "NIfTI-2 huge": (
        nifti(kind=nib.Nifti2Image, dim=[3, 2**62, 2**62, 2**62, 1, 1, 1, 1]),
        413,
        "more than 1024 voxels on a side",
    ),
    "NIfTI-2 offset": (
        nifti(kind=nib.Nifti2Image, vox_offset=2**62),
        422,
        "its header places the voxels where they cannot be (vox_offset)",
    ),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    content, status, message = CRAFTED[name]
    assert refused(tmp_path, content) == (status, message)


@pytest.mark.parametrize("name", [name for name in CRAFTED if name not in ("nothing", "more")])
def test_gzip_hides_none_of_it(tmp_path: Path, name: str) -> None:
    content, status, message = CRAFTED[name]
    assert refused(tmp_path, gzip.compress(content)) == (status, message)


def test_gzip_within_gzip_is_no_scan(tmp_path: Path) -> None:
    nested = gzip.compress(gzip.compress(nifti()))
    assert refused(tmp_path, nested) == (415, "not a NIfTI file (.nii or .nii.gz)")


def test_a_gzip_bomb_behind_a_good_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(nifti() + bytes(2**26))
    assert refused(tmp_path, bomb) == (413, f"its gzip holds more than {len(nifti())} bytes")
    monkeypatch.setattr(gunzip, "FREE_BYTES", 2**20)
    zeros = nifti(np.zeros((128, 128, 128), np.float32))
    assert refused(tmp_path, gzip.compress(zeros, 1)) == (413, "its gzip holds more than 200 times its own size")


def test_limits_are_those_of_the_config(tmp_path: Path) -> None:
    few = UploadsConfig(max_voxels=1000)
    assert refused(tmp_path, nifti(), few) == (413, "more than 1000 voxels")
    short = UploadsConfig(max_side=19)
    assert refused(tmp_path, nifti(), short) == (413, "more than 19 voxels on a side")
    small = UploadsConfig(max_file_mib=1)
    assert refused(tmp_path, nifti() + bytes(2**20), small) == (413, "larger than 1 MiB")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    array = voxels(np.float32)
    array[3, 3, 3] = value
    assert refused(tmp_path, nifti(array)) == (422, "NaN or infinite voxels")


def test_an_image_of_one_value_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, nifti(np.full(SHAPE, 7, np.int16))) == (422, "all voxels are the same")
    assert refused(tmp_path, nifti(np.zeros(SHAPE, np.int16))) == (422, "all voxels are zero")


def test_a_label_map_of_no_labels_is_refused(tmp_path: Path) -> None:
    for array, message in (
        (voxels() - 5, "labels outside 0 to 65535"),
        (voxels(np.float32) / 2, "labels are not whole numbers"),
        (voxels(np.int32) * 100, "labels outside 0 to 65535"),
    ):
        with pytest.raises(UploadError) as raised:
            read_label_map(kept(tmp_path, nifti(array)), LIMITS)
        assert refusal(raised) == (422, message)
