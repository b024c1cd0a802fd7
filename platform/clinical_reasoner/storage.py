"""Where files lie: on this machine or on S3, through one file system of pyarrow."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from clinical_reasoner.errors import UserError

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it in the processes of a submitted job."""


class RunError(UserError):
    """The run folder cannot be used as asked; the message names the folder, the stage and the fix."""


def filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """File system of a local path or `s3://bucket/...` address, and the path on it.

    S3 takes its keys and region from the usual AWS variables and honours AWS_ENDPOINT_URL.
    """
    if not path.startswith("s3://"):
        if "://" in path or not path:
            raise RunError(f"run.path {path!r} is neither a local path nor s3://bucket/folder")
        if JOB_VARIABLE in os.environ and not Path(path).expanduser().is_absolute():
            raise RunError(
                f"run.path {path!r} is relative, and a submitted job works in a temporary copy of the project that is "
                "removed after it; write run.path=/a/shared/folder or run.path=s3://bucket/folder"
            )
        return pafs.LocalFileSystem(), os.path.abspath(Path(path).expanduser())
    base = path.removeprefix("s3://").strip("/")
    if not base:
        raise RunError(f"run.path {path!r} names no bucket; write s3://bucket/folder")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if not endpoint:
        return pafs.S3FileSystem(), base
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise RunError(f"AWS_ENDPOINT_URL is {endpoint!r}; write http://host:port or https://host:port")
    # pyarrow reads the variable for s3:// addresses only, not where a file system is made by hand.
    return pafs.S3FileSystem(endpoint_override=address.netloc, scheme=address.scheme), base


def read_file(path: str) -> bytes:
    """Content of a file beside the run, local or `s3://`. Raises RunError, with the path, when it cannot be read."""
    try:
        if path.startswith("s3://"):
            files, place = filesystem(path)
            with files.open_input_stream(place, compression=None) as stream:
                return bytes(stream.read())
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        fix = f" (looked in {Path.cwd()})" if isinstance(error, FileNotFoundError) else ""
        raise RunError(f"no file at {path!r} that can be read: {type(error).__name__}{fix}") from error
