"""The parts of one form (multipart/form-data, RFC 7578), as they come: texts are kept, files written to a folder."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header

from clinical_reasoner.serving.schema import WHOLE_BODY
from clinical_reasoner.serving.upload_errors import TOO_LARGE, UploadError

FILES = ("scan", "segmentation", "slices")
TEXTS = ("request", "segmenter", "field_strength_t")
_MOST_TEXT_BYTES = 256
"""Of the short texts."""
_SILENT = logging.getLogger(f"{__name__}.parser")
_SILENT.disabled = True
"""The parser's own log may repeat what was sent."""


class Form:
    """Takes a form in pieces. Every part is known by its name, and none is taken beyond its size."""

    def __init__(self, boundary: bytes, folder: Path, request_bytes: int, file_bytes: int, pictures: int) -> None:
        self.texts: dict[str, bytearray] = {}
        """By name."""
        self.files: dict[str, list[Path]] = {name: [] for name in FILES}
        """In the order of the form."""
        self.is_complete = False
        """Whether the last boundary was there."""
        self._folder = folder
        self._text_bytes = {"request": request_bytes}
        self._file_bytes, self._pictures = file_bytes, pictures
        self._header, self._value, self._name = bytearray(), bytearray(), ""
        self._disposition: bytes | None = None
        self._file: BinaryIO | None = None
        self._hash = sha256()
        self._hashes: dict[str, list[str]] = {name: [] for name in FILES}
        self._size = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self.close,
                "on_end": self._end,
            },
        )
        self._parser.logger = _SILENT

    def write(self, piece: bytes) -> None:
        """Raises UploadError for a part that is not taken, and FormParserError for what is no form."""
        self._parser.write(piece)

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._hashes[self._name].append(self._hash.hexdigest())

    def digests(self) -> tuple[str, ...]:
        """Name and SHA-256 of each part but `request`; the files in the order of FILES."""
        files = [f"{name} {found}" for name in FILES for found in self._hashes[name]]
        texts = [f"{name} {sha256(self.texts[name]).hexdigest()}" for name in TEXTS[1:] if name in self.texts]
        return (*files, *texts)

    def _part_begin(self) -> None:
        self._disposition, self._size = None, 0
        self._header, self._value = bytearray(), bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        """The name decides where the part goes; a file's name, in the same header, is not looked at."""
        name = self._name = parse_options_header(self._disposition)[1].get(b"name", b"").decode("ascii", "replace")
        if name in FILES:
            self._begin_file(name)
        elif name in TEXTS:
            if name in self.texts:
                raise UploadError(name, "is there twice")
            self.texts[name] = bytearray()
        else:
            raise UploadError(WHOLE_BODY, f"a part has an unknown name; parts are {', '.join((*TEXTS, *FILES))}")

    def _begin_file(self, name: str) -> None:
        files = self.files[name]
        if name == "slices" and len(files) == self._pictures:
            raise UploadError(name, f"more than {self._pictures} pictures", TOO_LARGE)
        if name != "slices" and files:
            raise UploadError(name, "is there twice")
        files.append(self._folder / f"{name}-{len(files)}")
        self._file, self._hash = files[-1].open("xb"), sha256()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        most = self._text_bytes.get(self._name, _MOST_TEXT_BYTES) if self._file is None else self._file_bytes
        if self._size > most:
            raise UploadError(self._name, f"larger than {most} bytes", TOO_LARGE)
        if self._file is not None:
            self._file.write(data[start:end])
            self._hash.update(data[start:end])
        else:
            self.texts[self._name] += data[start:end]

    def _end(self) -> None:
        self.is_complete = True
