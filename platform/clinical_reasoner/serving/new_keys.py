"""Making and revoking API keys: the file is replaced as a whole, and the token is nowhere but in the caller's hands."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

from clinical_reasoner.serving.keys import Key, KeyFile, KeyFileError, digest_of, new_token, parse_keys
from clinical_reasoner.storage import JOB_VARIABLE, read_file

_HEAD = "# API keys of the endpoint, made by jobs/create_api_key.py; hashes only.\n"


def add_key(path: str, key_id: str, settings: dict[str, Any] | None = None, *, token_file: str | None = None) -> str:
    """Add a key and return its token, which is also written to `token_file`: a new one, which its owner alone can read.

    `settings` are further fields of `Key`; None stands for the default. Raises KeyFileError where a file cannot be
    used, the id is taken or a setting is not allowed.
    """
    token = new_token()
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    entry = json.dumps({"keys": [{"id": key_id, "sha256": digest_of(token), **given}]}, default=str)
    key = parse_keys(entry.encode(), "the new key").keys[0]

    def with_key(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(one.id == key_id for one in keys):
            raise KeyFileError(f"{path}: there is a key {key_id!r}; choose another id, a revoked one too is used up")
        return (*keys, key)

    if token_file is None:
        _change(path, with_key, may_be_new=True)
        return token
    kept = Path(token_file).expanduser()
    _write_new(kept, token + "\n")  # first, as a key whose token is lost is of no use
    with _removed_on_failure(kept):
        _change(path, with_key, may_be_new=True)
    return token


def revoke_key(path: str, key_id: str) -> None:
    """From now on the key is refused. Its entry stays, expired, as audit records name its id."""
    today = datetime.now(UTC).date()

    def without(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if not any(one.id == key_id for one in keys):
            raise KeyFileError(f"{path}: there is no key {key_id!r}; it has {', '.join(one.id for one in keys)}")
        return tuple(_expired(one, today) if one.id == key_id else one for one in keys)

    _change(path, without, may_be_new=False)


def _expired(key: Key, today: date) -> Key:
    return key.model_copy(update={"expires": min(today, key.expires or today)})


def _change(path: str, change: Callable[[tuple[Key, ...]], tuple[Key, ...]], *, may_be_new: bool) -> None:
    if JOB_VARIABLE in os.environ and not Path(path).expanduser().is_absolute():
        raise KeyFileError(f"serving.api_keys {path!r} is relative, and a submitted job works in a temporary copy")
    file = Path(path).expanduser().resolve()  # a link stays a link
    draft = file.with_name(f"{file.name}.new")
    _write_new(draft, "")  # holds others off until it takes the file's place
    with _removed_on_failure(draft):
        old = () if may_be_new and not file.exists() else parse_keys(read_file(str(file)), path).keys
        draft.write_text(_text(KeyFile(keys=change(old)), file), encoding="utf-8")
        if file.exists():
            _make_alike(draft, file)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(file)


def _make_alike(draft: Path, file: Path) -> None:
    """Owner, group and mode of the file that is replaced: whoever reads it must go on doing so, and nobody else."""
    old = file.stat()
    try:
        os.chown(draft, old.st_uid, old.st_gid)
        draft.chmod(stat.S_IMODE(old.st_mode))
    except OSError as error:
        raise KeyFileError(
            f"{file}: not changed, as its owner and group ({old.st_uid}:{old.st_gid}) cannot be kept "
            f"({type(error).__name__}); run this as its owner"
        ) from error


@contextmanager
def _removed_on_failure(file: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _text(keys: KeyFile, file: Path) -> str:
    content = keys.model_dump(mode="json")
    if file.suffix == ".json":
        return json.dumps(content, indent=2) + "\n"
    return _HEAD + yaml.safe_dump(content, sort_keys=False)


def _write_new(file: Path, text: str) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyFileError(f"{file}: is there already; where no other process is at work, remove it") from error
    except OSError as error:
        raise KeyFileError(f"{file}: cannot be written: {type(error).__name__}") from error
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
