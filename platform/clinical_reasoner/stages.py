"""One stage of a run: skipped when finished, timed, and closed with its manifest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinical_reasoner.manifests import identity
from clinical_reasoner.runs import WORK, Manifest, RunError, RunFolder
from clinical_reasoner.storage import read_file

_HASHED_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Rows:
    """What a stage did with its input: rows in = rows out + rows rejected."""

    rows_in: int
    rows_out: int
    rows_rejected: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage's name, and everything that decides its result."""

    name: str
    settings: Mapping[str, Any]
    reads: Sequence[str] = ()
    """Stages whose tables it reads."""


def stage_inputs(run: RunFolder, stage: Stage) -> dict[str, str]:
    """Identity of each stage that is read. Raises RunError when one is not finished."""
    inputs = {}
    for name in stage.reads:
        upstream = run.manifest(name)
        if upstream is None:
            raise RunError(f"{run.path}: stage {stage.name!r} reads {name!r}, which is not finished; run its job first")
        inputs[name] = upstream.identity
    return inputs


def work_folder(run: RunFolder, stage: Stage) -> str:
    """Folder below the run folder for the unfinished work of a stage: another one whenever anything that decides the
    result changes, so that nothing is ever continued from other settings."""
    return f"{WORK}/{stage.name}-{identity(stage.name, stage.settings, stage_inputs(run, stage))[:16]}"


def run_stage(run: RunFolder, stage: Stage, make: Callable[[], Rows], *, overwrite: bool = False) -> Manifest:
    """Make a stage unless it is finished; prints one line either way. Its work folders go once the manifest stands.

    Raises RunError when a stage that it reads is not finished, or when it was made with other settings and `overwrite`
    is false.
    """
    inputs = stage_inputs(run, stage)
    if run.finished(stage.name, stage.settings, inputs, overwrite):
        manifest = run.manifest(stage.name)
        if manifest is None:
            raise RunError(f"{run.child(stage.name)}: the manifest vanished while it was read; start again")
        run.clear_work(stage.name)  # of a run that was killed right after its manifest
        print(f"[{stage.name}] finished before: {manifest.rows_out} rows")
        return manifest
    started = time.monotonic()
    print(f"[{stage.name}] ...", flush=True)
    rows = make()
    manifest = run.finish(
        stage.name,
        settings=stage.settings,
        inputs=inputs,
        rows_in=rows.rows_in,
        rows_out=rows.rows_out,
        rows_rejected=rows.rows_rejected,
        seconds=round(time.monotonic() - started, 1),
        details=rows.details,
    )
    run.clear_work(stage.name)
    print(f"[{stage.name}] {rows.rows_out} rows, {rows.rows_rejected} rejected, {manifest.seconds:.0f} s", flush=True)
    return manifest


def file_fingerprint(path: str) -> str:
    """SHA-256 (hex) of a file's content. Raises RunError with the path when there is none."""
    return hashlib.sha256(read_file(path)).hexdigest()


def model_fingerprint(model: str) -> str:
    """Of a local model folder: names, sizes, and first and last 4 MiB of its files; of a hub name or an address such as
    `s3://...`: that text. Raises RunError for what can only be meant as a folder and is none."""
    folder = Path(model)
    if not folder.is_dir():
        if "://" not in model and (model.startswith((".", "/", "~")) or model.count("/") > 1):
            hint = "; write the whole path, `~` is not read here" if model.startswith("~") else ""
            raise RunError(f"no folder at {model!r} (looked in {Path.cwd()}){hint}")
        return model
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.suffix in {".safetensors", ".json", ".jinja"}:
            digest.update(f"{file.name}:{file.stat().st_size}".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_HASHED_BYTES))
                stream.seek(max(stream.tell(), file.stat().st_size - _HASHED_BYTES))
                digest.update(stream.read(_HASHED_BYTES))
    return digest.hexdigest()
