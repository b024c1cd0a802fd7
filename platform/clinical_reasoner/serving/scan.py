"""A scan or label map that was sent: checked by its header, unpacked within limits, then read as any scan is."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.imaging.headers import Layout, ScanError
from clinical_reasoner.imaging.scans import LabelMap, Volume, label_map_of, volume_of
from clinical_reasoner.serving.gunzip import gunzip, gunzip_head, is_gzip
from clinical_reasoner.serving.nifti_header import HEADER_BYTES, read_header
from clinical_reasoner.serving.upload_errors import TOO_LARGE, UploadError

MIB = 2**20
_HEAD_BYTES = 64 * 2**10
"""Of a file, in which its header is found: gzip may put names before it."""


def read_scan(file: Path, limits: UploadsConfig, field: str = "scan") -> Volume:
    """The intensities of a NIfTI file (.nii, .nii.gz by content, whatever it is called).

    Raises UploadError for any other file, for one beyond the limits, and for one that is no 3-D scan of finite and
    different numbers in millimetres with a known orientation.
    """
    layout, content = _layout_and_content(file, limits, field)
    try:
        return volume_of(layout, content)
    except ScanError as error:
        raise UploadError(field, str(error)) from None


def read_label_map(file: Path, limits: UploadsConfig, field: str = "segmentation") -> LabelMap:
    """The labels of a NIfTI file. Raises UploadError as `read_scan`, and for voxels that are no labels."""
    layout, content = _layout_and_content(file, limits, field)
    try:
        return label_map_of(layout, content)
    except ScanError as error:
        raise UploadError(field, str(error)) from None


def _layout_and_content(file: Path, limits: UploadsConfig, field: str) -> tuple[Layout, bytes | bytearray]:
    """Nothing is taken for the voxels before the header has been held against the limits and the file's size."""
    size = file.stat().st_size
    if size > limits.max_file_mib * MIB:
        raise UploadError(field, f"larger than {limits.max_file_mib} MiB", TOO_LARGE)
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        if is_gzip(head):
            layout = read_header(gunzip_head(head, HEADER_BYTES, field), limits, field)
            content: bytes | bytearray = gunzip(stream, layout.bytes, limits.max_ratio, field)
            _check_length(len(content), layout, field)
        else:
            layout = read_header(head[:HEADER_BYTES], limits, field)
            _check_length(size, layout, field)
            content = _whole(stream, layout)
    return layout, content


def _whole(stream: BinaryIO, layout: Layout) -> bytes:
    stream.seek(0)
    return stream.read(layout.bytes)


def _check_length(length: int, layout: Layout, field: str) -> None:
    """`length`: bytes of the unpacked file."""
    if length < layout.bytes:
        raise UploadError(field, "cut off: holds less than its header says")
    if length > layout.bytes:
        raise UploadError(field, "holds more than its header says")
