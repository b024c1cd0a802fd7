"""Opening scans: NIfTI-1, NIfTI-2 and FreeSurfer's MGH, plain or gzipped, whatever their orientation.

A file is refused, before its voxels are read where the header tells, with a ScanError whose few words name neither the
file nor the person: paths hold ids.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.volumeutils import apply_read_scaling

from clinical_reasoner.imaging.headers import HEADER_BYTES, MOST_EXTRA_BYTES, Layout, layout_of, voxel_lengths
from clinical_reasoner.imaging.headers import ScanError as ScanError

HIGHEST_LABEL = 65_535
"""Above those of FreeSurfer's atlases; counting labels takes memory by the highest one."""
_ENDINGS = (".nii", ".nii.gz", ".mgz", ".mgh", ".mgh.gz")
_HEAD_BYTES = 64 * 2**10
"""Of a file, in which its header is found: gzip may put names before it."""


@dataclass(frozen=True, eq=False)
class _Scan:
    array: npt.NDArray[Any]
    """[x, y, z], growing to the right, to the front and up (RAS+), or as near to that as the axes lie."""
    affine: npt.NDArray[np.float64]
    """[4, 4] from voxel index to mm."""
    voxel_mm3: float
    """Volume of a voxel, mm³: the determinant of the affine."""
    zooms_mm: tuple[float, float, float]
    """Length of a voxel along each axis of `array`, mm."""


class LabelMap(_Scan):
    """Whole numbers (int32), 0 to HIGHEST_LABEL, 0 = no structure."""


class Volume(_Scan):
    """Intensities (float32), as scaled by the header."""


_Kind = TypeVar("_Kind", LabelMap, Volume)


def open_label_map(path: Path, root: Path | None) -> LabelMap:
    """A segmentation. `root`: the cohort's folder, which the file must not leave by a link or by `..`.

    Raises ScanError for a file that is not one 3-D image of whole labels in millimetres with a known orientation.
    """
    return label_map_of(*_read(path, root))


def open_volume(path: Path, root: Path | None) -> Volume:
    """A scan's intensities. `root` as in `open_label_map`.

    Raises ScanError for a file that is not one 3-D image of real numbers in millimetres with a known orientation.
    """
    return volume_of(*_read(path, root))


def label_map_of(layout: Layout, content: bytes | bytearray) -> LabelMap:
    """A segmentation from a file's bytes, unzipped, that reach to the end of its voxels. Raises ScanError for voxels
    that are no labels."""
    array = _scaled(layout, content)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ScanError("NaN or infinite voxels")
        if not (array == np.rint(array)).all():
            raise ScanError("labels are not whole numbers")
    if array.min() < 0 or array.max() > HIGHEST_LABEL:
        raise ScanError(f"labels outside 0 to {HIGHEST_LABEL}")
    return _canonical(LabelMap, array.astype(np.int32), layout.affine)


def volume_of(layout: Layout, content: bytes | bytearray) -> Volume:
    """A scan's intensities from a file's bytes, as in `label_map_of`. Raises ScanError for voxels that are not finite
    or all the same."""
    array = _scaled(layout, content)
    with np.errstate(over="ignore"):  # what overflows is infinite and refused
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ScanError("NaN or infinite voxels")
    return _canonical(Volume, array, layout.affine)


def find_file(path: Path, root: Path | None) -> Path:
    """Where a path leads, links followed. Raises ScanError when that is no file or outside `root`."""
    try:
        file = path.resolve(strict=True)
        inside = root is None or file.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):  # missing, a loop of links, a name that no file can have
        raise ScanError("no such file") from None  # the cause names the path
    if not inside:
        raise ScanError("outside the folder of the cohort")
    if not file.is_file():
        raise ScanError("not a file")
    return file


def _canonical(kind: type[_Kind], array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> _Kind:
    if array.min() == array.max():
        raise ScanError("all voxels are zero" if not array.any() else "all voxels are the same")
    image = nib.as_closest_canonical(nib.Nifti2Image(array, affine))  # type: ignore[no-untyped-call]
    matrix = np.asarray(image.affine, dtype=np.float64)
    x, y, z = (float(length) for length in voxel_lengths(matrix))
    return kind(
        array=np.asfortranarray(image.dataobj),  # the order of the file: no voxel moves unless an axis turns
        affine=matrix,
        voxel_mm3=float(abs(np.linalg.det(matrix[:3, :3]))),
        zooms_mm=(x, y, z),
    )


def _read(path: Path, root: Path | None) -> tuple[Layout, bytes]:
    """What the header says, and the file's bytes up to the end of its voxels."""
    if not path.name.lower().endswith(_ENDINGS):
        raise ScanError(f"not an image: its name ends in none of {', '.join(_ENDINGS)}")
    file = find_file(path, root)
    try:
        with file.open("rb") as stream:
            return _layout_and_content(stream, file.stat().st_size)
    except (gzip.BadGzipFile, zlib.error):
        raise ScanError("its gzip is damaged") from None
    except EOFError:
        raise ScanError("its gzip is cut off") from None
    except OSError:
        raise ScanError("cannot be read") from None  # the cause names the path


def _scaled(layout: Layout, content: bytes | bytearray) -> npt.NDArray[Any]:
    """Voxels as stored and scaled by the header."""
    stored = np.frombuffer(content, layout.dtype, math.prod(layout.shape), layout.offset)
    with np.errstate(all="ignore"):  # what becomes infinite is refused by both callers
        scaled: npt.NDArray[Any] = apply_read_scaling(
            stored.reshape(layout.shape, order="F"), layout.slope, layout.inter
        )
    return scaled


def _layout_and_content(stream: BinaryIO, size: int) -> tuple[Layout, bytes]:
    head = stream.read(_HEAD_BYTES)
    gzipped = head[:2] == b"\x1f\x8b"  # by content: names lie, and no header starts so
    layout = layout_of(zlib.decompressobj(31).decompress(head, HEADER_BYTES) if gzipped else head[:HEADER_BYTES])
    # Deflate adds less than 1 % and saves at most all but a 1032th (zlib's technical notes).
    _check_size(layout, size / 1.01 if gzipped else size, size * 1032 if gzipped else size)
    stream.seek(0)
    if not gzipped:
        return layout, stream.read(layout.bytes)
    with gzip.GzipFile(fileobj=stream) as unzipped:
        content = unzipped.read(layout.bytes)
        extra = unzipped.read(MOST_EXTRA_BYTES + 1)  # up to the end, where the checksum is
    _check_size(layout, len(content) + len(extra), len(content) + len(extra))
    return layout, content


def _check_size(layout: Layout, least: float, most: float) -> None:
    """`least`, `most`: bounds of what the file holds, bytes."""
    if most < layout.bytes:
        raise ScanError("cut off: holds less than its header says")
    if least > layout.bytes + MOST_EXTRA_BYTES:
        raise ScanError("holds far more than its header says")
