"""`/docs`: Swagger UI from files of this machine, so that no other host's script runs where the API key is kept."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "docs"
INDEX = "index.html"
OWN = {INDEX: "text/html", "start.js": "text/javascript"}
"""Files of FOLDER."""
BUNDLED = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
"""Files of the package fastapi-offline."""
HEADERS = {
    # Scripts are those files alone; Swagger UI sets styles and pictures by itself.
    "content-security-policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def add_docs_routes(api: FastAPI) -> None:
    """`GET /docs` and `GET /docs/{file}`: in no OpenAPI document, and open to everybody, as no patient is there."""
    bundle = files("fastapi_offline") / "static"
    contents = {name: (FOLDER / name).read_bytes() for name in OWN}
    contents |= {name: (bundle / name).read_bytes() for name in BUNDLED}
    types = {**OWN, **BUNDLED}

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(contents[INDEX], headers=HEADERS, media_type=OWN[INDEX])

    @api.get("/docs/{file}", include_in_schema=False)
    async def docs_file(file: str) -> Response:
        if file == INDEX or file not in contents:
            raise HTTPException(404)
        return Response(contents[file], headers=HEADERS, media_type=types[file])
