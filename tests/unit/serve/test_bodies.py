"""Bodies within limits: forms and JSON as clients send them, and as someone who means harm does."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clinical_reasoner.config.serving import ServingConfig, UploadsConfig
from clinical_reasoner.serving.uploads import UploadError
from serve.bodies import FOLDER_PREFIX, is_form, read_json, read_lines, read_parts, remove_leftovers

LIMITS = ServingConfig(max_body_mib=0.01, request_timeout_s=2, uploads=UploadsConfig(max_file_mib=1, max_pictures=3))
MIB = 2**20
CANARY = "Zebulon"
PATHS = ["../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "C:\\x", "a\0b", "", ".", "x" * 3000, f"{CANARY}.nii"]
BOUNDARY = "x" * 30
TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


async def parts(request: Request) -> JSONResponse:
    """What the form held, and where."""
    try:
        async with read_parts(request, LIMITS) as read:
            sent = read.sent
            files = [file for file in (sent.scan, sent.segmentation, *sent.slices) if file is not None]
            assert all(file.parent.stat().st_mode & 0o077 == 0 for file in files)
            return JSONResponse(
                {
                    "json": None if read.request_json is None else read.request_json.decode(),
                    "files": {file.name: len(file.read_bytes()) for file in files},
                    "segmenter": sent.segmenter,
                    "tesla": sent.field_strength_t,
                    "digests": sent.digests,
                    "folder": str(files[0].parent) if files else None,
                }
            )
    except UploadError as error:
        return refusal(error)


async def plain(request: Request) -> JSONResponse:
    try:
        body = await read_json(request, LIMITS.max_body_mib, LIMITS.request_timeout_s)
        return JSONResponse({"bytes": len(body), "form": is_form(request)})
    except UploadError as error:
        return refusal(error)


def refusal(error: UploadError) -> JSONResponse:
    return JSONResponse({"field": error.field, "message": error.message}, error.status)


async def lines(request: Request) -> JSONResponse:
    try:
        read = await read_lines(request, 3, 0.001, 1, LIMITS.request_timeout_s)
        return JSONResponse([line.decode() for line in read])
    except UploadError as error:
        return refusal(error)


APP = Starlette(
    routes=[
        Route("/lines", lines, methods=["POST"]),
        Route("/parts", parts, methods=["POST"]),
        Route("/json", plain, methods=["POST"]),
    ]
)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.glob(f"{FOLDER_PREFIX}*")) == []


def post(path: str, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test") as client:
            return await client.post(path, **request)

    return asyncio.run(send())


def form(body: bytes, **headers: str) -> httpx.Response:
    return post("/parts", content=body, headers={**TYPE, **headers})


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def end() -> bytes:
    return f"--{BOUNDARY}--\r\n".encode()


def test_a_form_is_read_by_the_names_of_its_parts() -> None:
    files = [("scan", ("s.nii", b"s" * 500_000)), ("segmentation", ("m", b"m" * 7)), ("slices", ("1", b"1"))]
    data = {"request": '{"model": "auto"}', "segmenter": "freesurfer-7.4", "field_strength_t": "2.89"}
    answer = post("/parts", data=data, files=[*files, ("slices", ("2", b"22"))])
    read = answer.json()
    assert answer.status_code == 200 and not Path(read.pop("folder")).exists()
    assert len(read.pop("digests")) == 6
    assert read == {
        "json": '{"model": "auto"}',
        "files": {"scan-0": 500_000, "segmentation-0": 7, "slices-0": 1, "slices-1": 2},
        "segmenter": "freesurfer-7.4",
        "tesla": 2.89,
    }


def test_digests_tell_every_file_and_what_is_said_about_it_apart() -> None:
    def digests(scan: bytes = b"1", part: str = "scan", **data: str) -> tuple[str, ...]:
        files = [(part, ("x", scan)), ("slices", ("x", b"2")), ("slices", ("x", b"3"))]
        answer = post("/parts", files=files, data={"request": "{}", **data}).json()
        return tuple(answer["digests"])

    assert digests()[0] == f"scan {hashlib.sha256(b'1').hexdigest()}"
    assert len(digests()) == 3
    others = [digests(b"9"), digests(part="segmentation"), digests(segmenter="a-1"), digests(field_strength_t="3")]
    assert len({digests(), *others}) == 5
    assert digests() == digests()


def test_texts_may_come_as_files_and_files_without_a_name() -> None:
    body = part("request", b"{}", '; filename="r.json"') + part("scan", b"s") + end()
    assert form(body).json()["json"] == "{}" and form(body).json()["files"] == {"scan-0": 1}


@pytest.mark.parametrize("name", PATHS)
def test_names_of_files_are_never_used(name: str, tmp_path: Path) -> None:
    answer = post("/parts", files={"scan": (name, b"s")})
    assert answer.json()["files"] == {"scan-0": 1} if answer.status_code == 200 else answer.status_code == 400
    assert [file for file in tmp_path.rglob("*") if FOLDER_PREFIX not in str(file)] == []


def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return pieces()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_without_a_length_is_the_same_in_any_pieces(size: int) -> None:
    body = part("request", b"{}") + part("scan", bytes(2000)) + end()
    answer = post("/parts", content=in_pieces(body, size), headers=TYPE)
    assert answer.json()["files"] == {"scan-0": 2000}


TOO_LARGE = {
    "scan": (part("scan", bytes(MIB + 1)), "scan", "larger than 1048576 bytes"),
    "request": (part("request", b"x" * 20_000), "request", "larger than 10485 bytes"),
    "segmenter": (part("segmenter", b"x" * 300), "segmenter", "larger than 256 bytes"),
    "pictures": (part("slices", b"x") * 4, "slices", "more than 3 pictures"),
    "all": (
        part("slices", bytes(MIB - 9)) * 3 + part("scan", bytes(MIB)),
        "(body)",
        "the body is larger than 3.01 MiB",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_is_refused_with_and_without_a_stated_length(name: str) -> None:
    body, field, message = TOO_LARGE[name]
    for content in (body + end(), in_pieces(body + end(), 50_000)):
        answer = post("/parts", content=content, headers=TYPE)
        assert (answer.status_code, answer.json()) == (413, {"field": field, "message": message})


def test_a_length_that_is_stated_is_refused_before_anything_is_read() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    for path, headers in (("/parts", TYPE), ("/json", {})):
        answer = post(path, content=never(), headers={**headers, "content-length": "99999999999"})
        assert answer.status_code == 413


@pytest.mark.parametrize("stated", ["-1", "1e3", "", " ", "0x10", "\u0661".encode(), "9" * 400, "1, 1"])
def test_a_length_that_is_no_number_is_refused(stated: Any) -> None:
    for path, headers in (("/parts", TYPE), ("/json", {})):
        answer = post(path, content=in_pieces(b"{}", 2), headers={**headers, "content-length": stated})
        assert answer.status_code == 400 and answer.json()["message"] == "content-length is not a number of bytes"


BROKEN = {
    "no end": part("scan", b"x"),
    "in a part": part("scan", b"x" * 100)[:-50],
    "in a header": part("scan", b"x")[:50],
    "nothing": b"",
    "other boundary": part("scan", b"x").replace(b"xxx", b"yyy") + end(),
    "no form": b"Zebulon is a beekeeper.",
    "many headers": part("scan", b"x", "\r\na: b" * 50) + end(),
    "long header": part("scan", b"x", "\r\na: " + "b" * 9000) + end(),
    "bad header": part("scan", b"x", "\r\n\x01\x02: b") + end(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_form_that_is_broken_is_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = form(BROKEN[name])
    assert answer.status_code == 400 and "form" in answer.json()["message"]
    assert CANARY not in answer.text + caplog.text and "oundary character" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'x' * 300}", 400),
        ("multipart/mixed; boundary=x", 415),
        ("application/json", 415),
        ("", 415),
        (";;;=", 415),
    ],
)
def test_a_content_type_that_is_no_form_is_refused(kind: str, status: int) -> None:
    answer = post("/parts", content=part("scan", b"x") + end(), headers={"content-type": kind})
    assert answer.status_code == status and answer.json()["field"] == "(body)"


@pytest.mark.parametrize("name", [CANARY, "Scan", "scan[]", "", "scan\\", "../scan", "__proto__"])
def test_an_unknown_part_is_refused_without_repeating_its_name(name: str) -> None:
    answer = form(part(name, b"x") + end())
    assert answer.status_code == 422
    assert answer.json()["message"].endswith("request, segmenter, field_strength_t, scan, segmentation, slices")
    assert CANARY not in answer.text


@pytest.mark.parametrize("name", ["request", "scan", "segmentation", "segmenter"])
def test_a_part_that_is_there_twice_is_refused(name: str) -> None:
    answer = form(part(name, b"x") * 2 + end())
    assert (answer.status_code, answer.json()) == (422, {"field": name, "message": "is there twice"})


def test_a_part_without_a_name_is_refused() -> None:
    answer = form(f"--{BOUNDARY}\r\ncontent-type: text/plain\r\n\r\nx\r\n".encode() + end())
    assert answer.status_code == 422


@pytest.mark.parametrize("name", ["free surfer\n", "<script>", "x" * 65, "", "\xe9", "../phantom"])
def test_a_segmenter_that_is_no_name_is_refused(name: str) -> None:
    answer = form(part("segmenter", f"{name}".encode()) + end())
    assert answer.status_code == 200 if name.strip() == "free surfer" else answer.json()["field"] == "segmenter"


@pytest.mark.parametrize("value", ["nan", "inf", "-3", "0", "99", "1e1", "3,0", "", "٣"])
def test_a_field_strength_that_is_no_number_of_tesla_is_refused(value: str) -> None:
    answer = form(part("field_strength_t", value.encode()) + end())
    assert answer.status_code == 422 and answer.json()["field"] == "field_strength_t"


def test_json_is_read_whole_and_within_its_limit() -> None:
    assert post("/json", content=b"x" * 10_000).json() == {"bytes": 10_000, "form": False}
    assert post("/json", content=b"x", headers=TYPE).json()["form"] is True
    assert post("/json", content=in_pieces(b"x" * 10_486, 100)).status_code == 413
    assert post("/json", content=b"x" * 10_486).status_code == 413
    assert post("/json", content=b"").json() == {"bytes": 0, "form": False}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_lines_are_counted_and_measured_in_any_pieces(size: int) -> None:
    for body, status in (
        (b"a\n\nbc", 200),
        (b"a\n \nbc\n", 200),
        (b"a\n\n\nbc", 413),
        (b"\n" * 4, 413),
        (b"a\n" + b"x" * 1048 + b"\n", 200),
        (b"x" * 1049 + b"\na", 413),
        (b"a\n" + b"x" * 1049, 413),
    ):
        answer = post("/lines", content=in_pieces(body, size))
        assert answer.status_code == status
        assert status == 413 or answer.json() == body.decode().split()


def test_too_many_lines_are_refused_before_the_body_is_there() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"\n" * 4
        raise AssertionError("read on")

    assert post("/lines", content=endless()).status_code == 413


@pytest.mark.parametrize("path", ["/json", "/parts"])
def test_an_encoded_body_is_not_unpacked(path: str) -> None:
    answer = post(path, content=b"\x1f\x8b", headers={**TYPE, "content-encoding": "gzip"})
    assert answer.status_code == 415


Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


def raw(receive: Receive, headers: dict[str, str]) -> int:
    """Status of a request whose body comes as `receive` says."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/parts",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    statuses = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def run() -> None:
        await APP({**scope, "query_string": b"", "root_path": ""}, receive, send)

    asyncio.run(run())
    return int(statuses[0])


def test_a_client_that_goes_away_leaves_nothing() -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part("scan", bytes(9000)), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    assert raw(receive, TYPE) == 400


def test_a_client_that_never_ends_is_not_waited_for() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return {"type": "http.request", "body": b"", "more_body": True}

    assert raw(receive, TYPE) == 408


def test_a_folder_of_a_dead_process_is_removed_and_one_of_the_living_is_not(tmp_path: Path) -> None:
    dead, living = tmp_path / f"{FOLDER_PREFIX}4194999-a", tmp_path / f"{FOLDER_PREFIX}1-b"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "scan-0").write_bytes(b"s")
    remove_leftovers()
    assert not dead.exists() and (living / "scan-0").exists()
    (living / "scan-0").unlink()
    living.rmdir()
