"""Bodies of requests, read piece by piece within limits: JSON, and forms whose files go to a folder that is removed.

Names of files are never used. Knows no Ray.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.serving.schema import WHOLE_BODY
from clinical_reasoner.serving.upload_errors import TOO_LARGE
from clinical_reasoner.serving.uploads import Sent, UploadError
from serve.forms import FILES, Form

FORM = b"multipart/form-data"
MIB = 2**20
FOLDER_PREFIX = "clinical-reasoner-upload-"
MOST_FIELDS = 2000
"""In a body of JSON, at all levels together: to tell what is wrong with each takes longer than to read it."""
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_LONGEST_BOUNDARY = 70
"""RFC 2046."""
_SEGMENTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,63}", re.ASCII)
_TESLA = re.compile(r"\d{1,2}(\.\d{1,4})?", re.ASCII)
_MOST_TESLA = 12.0


@dataclass(frozen=True)
class FormParts:
    """What a form held. The files are there as long as the context of `read_parts`."""

    request_json: bytes | None
    """Part `request`."""
    sent: Sent


def is_form(request: Request) -> bool:
    """Whether the request says that its body is a form with files."""
    return parse_options_header(request.headers.get("content-type"))[0] == FORM


async def read_json(request: Request, max_mib: float, timeout_s: float) -> bytes:
    """The whole body, of at most `max_mib` MiB. Raises UploadError: 413 for more, stated or sent; 400 for a
    content-length that is no number and for a body that breaks off; 408 after `timeout_s`; 415 for an encoded one."""
    body = bytearray()
    async for piece in _pieces(request, int(max_mib * MIB), timeout_s):
        body += piece
    return bytes(body)


def check_fields(content: bytes | bytearray) -> None:
    """Raises UploadError (413) for JSON of more than MOST_FIELDS fields. Only what stands outside of texts is counted,
    and nothing is read, so that a field which is there twice counts twice."""
    if content.count(b":") > MOST_FIELDS and _JSON_TEXT.sub(b"", content).count(b":") > MOST_FIELDS:
        raise UploadError(WHOLE_BODY, f"there are more than {MOST_FIELDS} fields", TOO_LARGE)


async def read_lines(
    request: Request, max_lines: int, line_mib: float, max_mib: float, timeout_s: float
) -> list[bytearray]:
    """The lines of a body that are not blank. Raises UploadError as `read_json`, and 413 for more than `max_lines`
    lines, blank ones too, and for a line of more than `line_mib` MiB; the lines are counted before they are split."""
    line_bytes = int(line_mib * MIB)
    too_long = UploadError(WHOLE_BODY, f"a line is longer than {line_mib:g} MiB", TOO_LARGE)
    too_many = UploadError(WHOLE_BODY, f"there are more than {max_lines} lines", TOO_LARGE)
    body, ended, unended = bytearray(), 0, 0
    async for piece in _pieces(request, int(max_mib * MIB), timeout_s):
        ended += piece.count(b"\n")
        unended = len(piece) - piece.rfind(b"\n") - 1 if b"\n" in piece else unended + len(piece)
        if ended + (unended > 0) > max_lines:
            raise too_many
        if unended > line_bytes:
            raise too_long
        body += piece
    lines = body.split(b"\n")
    if max(map(len, lines)) > line_bytes:
        raise too_long
    return [line for line in lines if line.strip()]


@asynccontextmanager
async def read_parts(request: Request, limits: ServingConfig) -> AsyncIterator[FormParts]:
    """The parts of a form: `request`, `scan`, `segmentation`, `slices` (several), `segmenter`, `field_strength_t`.

    The files lie in a folder of this request alone, which is removed at the end. Raises UploadError as `read_json`,
    413 for a part that is too large, and 422 for one that is unknown or there twice.
    """
    boundary = _boundary(request)
    uploads, json_bytes = limits.uploads, int(limits.max_body_mib * MIB)
    file_bytes = uploads.max_file_mib * MIB
    with _folder() as folder:
        form = Form(boundary, folder, json_bytes, file_bytes, uploads.max_pictures)
        try:
            # A scan, a label map, and as much again for all pictures.
            async for piece in _pieces(request, json_bytes + len(FILES) * file_bytes, limits.request_timeout_s):
                form.write(piece)
        except FormParserError:
            raise UploadError(
                WHOLE_BODY, "not a form (multipart/form-data): its parts cannot be told apart", 400
            ) from None
        finally:
            form.close()
        if not form.is_complete:
            raise UploadError(WHOLE_BODY, "the form is cut off: its last boundary is missing", 400)
        yield _parts(form)


def remove_leftovers() -> None:
    """Remove the folders of processes of this machine that were killed before they could: they hold scans."""
    for folder in Path(gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _folder() -> Iterator[Path]:
    """For nobody else to read."""
    with TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != FORM:
        raise UploadError(WHOLE_BODY, "send files as multipart/form-data", 415)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise UploadError(WHOLE_BODY, "the content-type of the form has no boundary of 1 to 70 characters", 400)
    return boundary


async def _pieces(request: Request, most_bytes: int, timeout_s: float) -> AsyncIterator[bytes]:
    """The body as it comes, however it is framed."""
    too_large = f"the body is larger than {most_bytes / MIB:g} MiB"
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UploadError(WHOLE_BODY, "send the body without content-encoding", 415)
    stated = request.headers.get("content-length")
    if stated is not None:
        if not re.fullmatch(r"[0-9]{1,18}", stated):
            raise UploadError(WHOLE_BODY, "content-length is not a number of bytes", 400)
        if int(stated) > most_bytes:
            raise UploadError(WHOLE_BODY, too_large, TOO_LARGE)
    deadline = asyncio.get_running_loop().time() + timeout_s
    stream, received = aiter(request.stream()), 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise UploadError(WHOLE_BODY, "the body broke off", 400) from None
        except TimeoutError:
            raise UploadError(WHOLE_BODY, f"the body did not arrive within {timeout_s:g} s", 408) from None
        received += len(piece)
        if received > most_bytes:
            raise UploadError(WHOLE_BODY, too_large, TOO_LARGE)
        yield piece


def _parts(form: Form) -> FormParts:
    segmenter, tesla = form.texts.get("segmenter"), form.texts.get("field_strength_t")
    name = strength = None
    if segmenter is not None:
        name = segmenter.decode("ascii", "replace").strip()
        if not _SEGMENTER.fullmatch(name):
            raise UploadError("segmenter", "should be a name and version such as freesurfer-7.4")
    if tesla is not None:
        text = tesla.decode("ascii", "replace").strip()
        strength = float(text) if _TESLA.fullmatch(text) else 0.0
        if not 0 < strength <= _MOST_TESLA:
            raise UploadError("field_strength_t", f"should be a number of tesla above 0 and up to {_MOST_TESLA:g}")
    request = form.texts.get("request")
    return FormParts(
        request_json=None if request is None else bytes(request),
        sent=Sent(
            scan=next(iter(form.files["scan"]), None),
            segmentation=next(iter(form.files["segmentation"]), None),
            slices=tuple(form.files["slices"]),
            segmenter=name,
            field_strength_t=strength,
            digests=form.digests(),
        ),
    )
