"""A small S3 on this machine, enough for pyarrow's file system: objects in memory, no signatures checked."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "Sat, 31 Jan 2026 09:05:00 GMT"


class SmallS3:
    """What the server holds; tests read and change it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        """`bucket/key` -> content."""
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.down = False
        """Answers 403 to everything, which clients do not try again."""
        self.address = ""


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("transfer-encoding") == "chunked":
        content = b""
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            content += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
    else:
        content = handler.rfile.read(int(handler.headers.get("content-length", 0)))
    if "aws-chunked" not in handler.headers.get("content-encoding", ""):
        return content
    whole = b""
    while content:
        head, _, content = content.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            break
        whole, content = whole + content[:size], content[size + 2 :]
    return whole


def _listing(s3: SmallS3, bucket: str, query: dict[str, list[str]]) -> str:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    entries, folders = [], set()
    for name in sorted(s3.objects):
        key = name.removeprefix(f"{bucket}/")
        if not name.startswith(f"{bucket}/{prefix}"):
            continue
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            continue
        size = len(s3.objects[name])
        entries.append(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>e</ETag>"
            "<LastModified>2026-01-31T09:05:00.000Z</LastModified></Contents>"
        )
    common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
    count = len(entries) + len(folders)
    return (
        f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{count}</KeyCount>"
        f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(entries)}{common}</ListBucketResult>"
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: SmallS3

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _send(self, status: int, content: bytes | str = b"", **headers: str) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {"ETag": '"e"', "Last-Modified": DATE, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _serve(self) -> None:
        place = urlsplit(self.path)
        name, query = unquote(place.path).strip("/"), parse_qs(place.query, keep_blank_values=True)
        body = _body(self)
        if self.s3.down:
            self._send(403, "<Error><Code>AccessDenied</Code><Message>down</Message></Error>")
        elif self.command in ("PUT", "POST"):
            self._write(name, query, body)
        elif self.command == "DELETE":
            self.s3.objects.pop(name, None)
            self._send(204)
        elif "list-type" in query:
            self._send(200, _listing(self.s3, name, query), Content_Type="application/xml")
        elif "/" not in name:
            self._send(200)
        elif name not in self.s3.objects:
            self._send(404, "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>")
        else:
            self._read(self.s3.objects[name])

    def _read(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if self.command == "HEAD":
            self._send(200, Content_Length=str(len(content)))
        elif asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            self._send(206, content[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(content)}")
        else:
            self._send(200, content)

    def _write(self, name: str, query: dict[str, list[str]], body: bytes) -> None:
        source = self.headers.get("x-amz-copy-source")
        if source:
            self.s3.objects[name] = self.s3.objects[unquote(source).strip("/")]
            self._send(200, "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>")
        elif "uploads" in query:
            self.s3.uploads[name] = {}
            self._send(
                200,
                f"<InitiateMultipartUploadResult><UploadId>{escape(name)}</UploadId></InitiateMultipartUploadResult>",
            )
        elif "partNumber" in query:
            self.s3.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            self._send(200)
        elif "uploadId" in query:
            parts = self.s3.uploads.pop(query["uploadId"][0])
            self.s3.objects[name] = b"".join(parts[number] for number in sorted(parts))
            self._send(200, "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
        else:
            self.s3.objects[name] = body
            self._send(200)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815


@contextmanager
def small_s3() -> Iterator[SmallS3]:
    """The server, in threads of this process; its address goes into AWS_ENDPOINT_URL."""
    s3 = SmallS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": s3}))
    server.daemon_threads = True
    s3.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
