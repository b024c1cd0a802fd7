"""A real server and headless Chromium, for tests of the page."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright

WIDE, NARROW = (1280, 900), (390, 844)
"""Width and height of the window, pixels."""
FLAGS = (
    "--no-sandbox",  # Chromium's own needs more rights than a container has.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S = 20.0
WAIT_MS = 30_000
"""Longest time for anything to appear on the page."""


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Address of a server on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + START_S
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(START_S)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless; the test is skipped where there is none. While it runs, asyncio.run cannot be used beside it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str, size: tuple[int, int] = WIDE) -> Iterator[Page]:
    """The page, once it is built. Afterwards no script may have failed and no rule of its policy been broken."""
    faults: list[str] = []
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        reduced_motion="reduce",  # nothing to wait for
    )
    try:
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(error.message))
        page.on("console", lambda line: faults.extend([line.text] * ("Content Security" in line.text)))
        page.goto(address)
        page.wait_for_selector("#send:enabled")
        yield page
    finally:
        context.close()
    assert not faults, faults
