"""What a study's files are, by content, so that a run notices when one of them is another than before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.readers import local_path
from clinical_reasoner.config.cohort import StudyCohort

_READ = (".csv", ".tsv", ".txt", ".parquet", ".xlsx", ".xlsm", ".stats", ".json")
"""Endings of files whose content decides; compared by SHA-256."""
_SIZED = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".hdr")
"""Endings of images; compared by size, as hashing them takes as long as measuring."""
_MARKERS = ("recon-all.error", "base-tps", "IsRunning")
"""Starts of the names of files that are read for being there: FreeSurfer's states of a run."""


def study_fingerprint(cohort: StudyCohort) -> str:
    """SHA-256 (hex) of the study's files: names, sizes, and of tables the content. No link is followed out of a folder.

    Raises StudyFileError, without the name of any file of a person, when a file is not there or cannot be read.
    """
    digest = hashlib.sha256()
    path = local_path(cohort.path)
    for line in _folder_lines(path) if path.is_dir() else _file_lines(path):
        digest.update(_bytes(line))
    mapping = cohort.mapping
    if mapping is not None and (mapping.image_path or mapping.segmentation_path):
        for line in _folder_lines(path.parent, _SIZED):
            digest.update(_bytes(line))
    for name in ("covariates", "volumes"):
        text = getattr(cohort, name)
        if text is not None:
            for line in _file_lines(local_path(text)):
                digest.update(_bytes(f"{name} {line}"))
    return digest.hexdigest()


def _bytes(line: str) -> bytes:
    return f"{line}\n".encode(errors="surrogateescape")  # a file may have any name


def _file_lines(file: Path) -> Iterator[str]:
    if not file.is_file():
        raise StudyFileError(f"cohort: no file or folder at {str(file)!r} (looked in {Path.cwd()})")
    yield f"{file.name} {_content(file)}"


def _folder_lines(folder: Path, endings: tuple[str, ...] = (*_READ, *_SIZED)) -> Iterator[str]:
    """A line for each file that matters, in the order of paths; folders that start with a dot are not the study's."""
    real = folder.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                yield f"{os.path.relpath(os.path.join(place, name), folder)} link"
        for name in sorted(names):
            lower = name.lower()
            if lower.startswith(".") or not (lower.endswith(endings) or name.startswith(_MARKERS)):
                continue
            file = Path(place, name)
            yield f"{os.path.relpath(file, folder)} {_inside(file, real)}"


def _inside(file: Path, folder: Path) -> str:
    """Size and, of a table, content; of a link out of the folder, or to nothing, only that it is one."""
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError):  # a link to nothing, or to itself
        return "link"
    if not real.is_relative_to(folder) or not real.is_file():
        return "link"
    return _content(real) if file.name.lower().endswith(_READ) else str(real.stat().st_size)


def _content(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return f"{os.fstat(stream.fileno()).st_size} {hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError as error:
        raise StudyFileError(f"cohort: a file of the study cannot be read ({type(error).__name__})") from error
