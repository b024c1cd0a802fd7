"""What was sent beside a request (scan, label map, pictures), read into pictures to show, grades and warnings."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.imaging.heads import SliceError
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import OTHER_GRID, freesurfer_labels, same_grid
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.imaging.scans import LabelMap, ScanError, Volume
from clinical_reasoner.imaging.slices import save_png, slice_images
from clinical_reasoner.imaging.views import PICTURE_PIXELS, views_picture
from clinical_reasoner.serving.png import grey_png
from clinical_reasoner.serving.scan import MIB, read_label_map, read_scan
from clinical_reasoner.serving.scan_grades import grade_label_map
from clinical_reasoner.serving.upload_errors import TOO_LARGE
from clinical_reasoner.serving.upload_errors import UploadError as UploadError
from clinical_reasoner.task import DiagnosisTask

NO_PICTURE = (
    "slices: shown only; students of pictures read `scan`, or one PNG of "
    f"{PICTURE_PIXELS[1]} x {PICTURE_PIXELS[0]} pixels as this software makes it of one"
)


class UploadRules(StrictConfig):
    """What uploads are read by; the same for all requests of an endpoint."""

    task: DiagnosisTask
    norms: Norms = Norms()
    """Of the run: `findings/norms.json`."""
    cut_points: tuple[float, ...]
    """Of w-scores, descending, one fewer than the task has grades."""
    limits: UploadsConfig = UploadsConfig()


@dataclass(frozen=True)
class Sent:
    """Files of one request, under names that this software gave them."""

    scan: Path | None = None
    """T1-weighted scan, NIfTI."""
    segmentation: Path | None = None
    """Label map with FreeSurfer's ids, NIfTI, of any grid."""
    slices: tuple[Path, ...] = ()
    """PNG pictures."""
    segmenter: str | None = None
    """Software and version that made the label map, as the norms call it."""
    field_strength_t: float | None = None
    """Of the scanner, tesla."""
    digests: tuple[str, ...] = ()
    """Name and SHA-256 of each of these as it was sent, for the audit record."""

    @property
    def has_files(self) -> bool:
        return self.scan is not None or self.segmentation is not None or bool(self.slices)


@dataclass(frozen=True)
class Upload:
    """What came of the files."""

    picture: bytes | None = None
    """PNG (grey, PICTURE_PIXELS) for a student of pictures."""
    slices: tuple[tuple[str, bytes], ...] = ()
    """Name and PNG (grey) to show."""
    grades: Mapping[str, str] = field(default_factory=dict)
    """Finding -> grade of the task, out of the label map."""
    warnings: tuple[str, ...] = ()
    """In words; no value of the patient, no name of a file."""
    digests: tuple[str, ...] = ()
    """Of what was sent; see `Sent`."""


def read_upload(sent: Sent, patient_fields: Mapping[str, Any], rules: UploadRules) -> Upload:
    """Reads all files. `patient_fields`: the structured patient's columns, {} where there is none.

    Takes as much memory as the limits let a file ask for: call it in a process of its own. Raises UploadError.
    """
    limits = rules.limits
    if len(sent.slices) > limits.max_pictures:
        raise UploadError("slices", f"more than {limits.max_pictures} pictures", TOO_LARGE)
    grades: Mapping[str, str] = {}
    warnings: list[str] = []
    label_map = None
    if sent.segmentation is not None:
        with _naming("segmentation"):
            label_map = read_label_map(sent.segmentation, limits)
            grades, told = grade_label_map(
                label_map,
                sent.segmenter,
                sent.field_strength_t,
                patient_fields,
                rules.norms,
                rules.cut_points,
                rules.task,
            )
        warnings += told
    picture: bytes | None = None
    slices: list[tuple[str, bytes]] = []
    if sent.scan is not None:
        with _naming("scan"):
            scan = read_scan(sent.scan, limits)
            shared = label_map if label_map is not None and same_grid(scan, label_map) else None
            picture, slices = _look_at(scan, shared)
        if label_map is not None and shared is None:
            warnings.append(OTHER_GRID)
    shown, sent_picture = _pictures(sent.slices, limits)
    if sent.slices and picture is None:
        picture = sent_picture
        warnings += [NO_PICTURE] * (picture is None)
    return Upload(picture, (*slices, *shown), grades, tuple(warnings))


def _look_at(scan: Volume, label_map: LabelMap | None) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The picture for students, and slices to show."""
    labels = None if label_map is None else freesurfer_labels(label_map.array, FREESURFER)
    slices = slice_images(scan.array, labels, scan.affine)
    return (
        _png(views_picture(scan.array, labels, scan.affine)),
        [(name, _png(picture)) for name, picture in slices.items()],
    )


def _pictures(files: tuple[Path, ...], limits: UploadsConfig) -> tuple[list[tuple[str, bytes]], bytes | None]:
    """The pictures as sent; and the only one, where it has the size of what students read."""
    shown, sizes = [], []
    for number, file in enumerate(files, start=1):
        name = f"slices.{number}" if len(files) > 1 else "slices"
        if file.stat().st_size > limits.max_file_mib * MIB:
            raise UploadError(name, f"larger than {limits.max_file_mib} MiB", TOO_LARGE)
        content, size = grey_png(file.read_bytes(), limits.max_pixels, name)
        shown.append((f"slice_{number}", content))
        sizes.append(size)
    return shown, shown[0][1] if sizes == [PICTURE_PIXELS[::-1]] else None


def _png(picture: Any) -> bytes:
    out = io.BytesIO()
    save_png(picture, out)
    return out.getvalue()


@contextmanager
def _naming(part: str) -> Iterator[None]:
    try:
        yield
    except (ScanError, SliceError) as error:
        raise UploadError(part, str(error)) from None
