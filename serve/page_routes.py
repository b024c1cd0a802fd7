"""The page for people at `/`: fixed files of `serve/page/`, and the form that they are filled with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response

from serve.desk import Desk
from serve.page_form import page_form

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # No script or style but those files, no other host; slices come as data: pictures.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def add_page_routes(api: FastAPI, desk: Desk) -> None:
    """`GET /`, `GET /page/{file}` and `GET /v1/form`: in no OpenAPI document, and open to everybody, as no patient is
    there.
    """
    files = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.suffix in TYPES}
    content = page_form(desk.panel.task, desk.body_model, desk.limits, desk.examples())

    @api.get("/", include_in_schema=False)
    async def index() -> Response:
        return _file(INDEX, files[INDEX])

    @api.get("/page/{file}", include_in_schema=False)
    async def page_file(file: str) -> Response:
        if file == INDEX or file not in files:
            raise HTTPException(404)
        return _file(file, files[file])

    @api.get("/v1/form", include_in_schema=False)
    async def form() -> Any:
        return JSONResponse(content, headers=HEADERS)


def _file(name: str, content: bytes) -> Response:
    return Response(content, headers=HEADERS, media_type=TYPES[Path(name).suffix])
