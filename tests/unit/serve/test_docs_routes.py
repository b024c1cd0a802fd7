"""`/docs` in headless Chromium: drawn from files of this machine, without a script of any other host."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from playwright.sync_api import expect

from serve.api import build_api
from serve.docs_routes import FOLDER
from tests.browser import chromium, opened, served
from tests.unit.serve.desks import plain_desk
from tests.unit.serve.test_page import PANEL


def test_documentation_is_drawn_without_another_host(tmp_path: Path) -> None:
    api = build_api(plain_desk(PANEL, {}, tmp_path))
    with chromium() as browser, served(api) as address, opened(browser, address) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}docs")
        expect(page.locator(".swagger-ui .title")).to_contain_text("clinical-reasoner")
        expect(page.locator(".opblock-summary-path").first).to_be_visible()
        page.locator(".opblock-summary-post").first.click()
        expect(page.locator(".opblock-body").first).to_be_visible()
        assert len(asked) >= 5
        assert [url for url in asked if not url.startswith((address, "data:"))] == []


def test_documentation_has_strict_headers_and_names_no_other_host(tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        assert re.findall(r"https?://", file.read_text()) == [], file.name
    assert not re.search(r"<script(?![^>]* src=)", (FOLDER / "index.html").read_text()), "a script of the page itself"
    with served(build_api(plain_desk(PANEL, {}, tmp_path))) as address:
        for path in ("docs", "docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css"):
            response = httpx.get(address + path)
            assert response.status_code == 200, path
            assert "script-src 'self';" in response.headers["content-security-policy"]
            assert response.headers["x-content-type-options"] == "nosniff"
        for path in ("docs/index.html", "docs/..%2fapi.py", "docs/redoc.standalone.js"):
            assert httpx.get(address + path).status_code == 404
        assert not {"/docs", "/docs/{file}"} & set(httpx.get(address + "openapi.json").json()["paths"])
