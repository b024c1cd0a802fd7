"""Study files on S3: copied to this machine once, because their readers take folders and files."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow.fs as pafs

from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.storage import filesystem

CACHE_VARIABLE = "CLINICAL_REASONER_CACHE"
"""Folder of the copies; on a cluster one that every worker sees under the same path."""
_AT_A_TIME = 8


@lru_cache(maxsize=16)
def local_copy(address: str) -> Path:
    """The file or folder at an `s3://` address, copied below the cache folder of this machine, for its user alone.

    A file of the same size and time is not fetched again, and one that is no longer there is removed. Raises
    StudyFileError, without the name of any file, when there is nothing or it cannot be read.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/clinical-reasoner").expanduser()
    target = cache / hashlib.sha256(address.encode()).hexdigest()[:16]
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    files, base = filesystem(address)
    try:
        return mirror(files, base, target)
    except OSError as error:
        raise StudyFileError(f"cohort: {address!r} cannot be read ({type(error).__name__})") from error


def mirror(files: pafs.FileSystem, base: str, target: Path) -> Path:
    """Bring `target` to what lies at `base`, and say where in it the file, or the folder itself, is."""
    found = files.get_file_info(base)
    if found.type is pafs.FileType.File:
        wanted = {PurePosixPath(base).name: found}
    else:
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        entries = [entry for entry in files.get_file_info(selector) if entry.type is pafs.FileType.File]
        wanted = {os.path.relpath(entry.path, base): entry for entry in entries}
    if not wanted:
        raise StudyFileError("cohort: no file at this address")
    if any(".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() for name in wanted):
        raise StudyFileError("cohort: a file at this address has a name that leaves its folder")
    for old in [path for path in target.rglob("*") if path.is_file()]:
        if str(old.relative_to(target)) not in wanted:
            old.unlink()
    missing = [name for name, entry in wanted.items() if not _same(target / name, entry)]
    if missing:
        with ProgressBar("study files", len(missing)) as bar, ThreadPoolExecutor(_AT_A_TIME) as pool:
            copies = [pool.submit(_fetch, files, wanted[name], target / name) for name in missing]
            for done, copy in enumerate(as_completed(copies), start=1):
                copy.result()
                bar.update(done)
    return target / PurePosixPath(base).name if found.type is pafs.FileType.File else target


def _same(file: Path, entry: pafs.FileInfo) -> bool:
    if not file.is_file():
        return False
    status = file.stat()
    return bool(status.st_size == entry.size and status.st_mtime_ns == entry.mtime_ns)


def _fetch(files: pafs.FileSystem, entry: pafs.FileInfo, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.part")
    pafs.copy_files(entry.path, str(unfinished), files, pafs.LocalFileSystem())
    if entry.mtime_ns is not None:
        os.utime(unfinished, ns=(entry.mtime_ns, entry.mtime_ns))
    unfinished.replace(file)
