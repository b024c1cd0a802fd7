"""A patient with a name like no other, sent in every way and to every end; `test_endpoint_stop.py` looks for it."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.integration.endpoint_images import phantom_files
from tests.integration.endpoint_run import CANARY, CANARY_AGE, Endpoint, canary_patient, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

LOWER = CANARY.lower()
KEY = f"{CANARY} {CANARY}son"
"""As a key of JSON or the name of a part: no name of a field, so that it is not named in a refusal."""
CHAT = {"messages": [{"role": "user", "content": f"{CANARY}, {CANARY_AGE} years old."}], "max_tokens": 8}
BUNDLE = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [{"resource": {"resourceType": "Patient", "id": LOWER, "name": [{"family": CANARY}], KEY: 1}}],
}


def kept(endpoint: Endpoint, response: httpx.Response, *statuses: int) -> httpx.Response:
    """The response; where it is a refusal, its text is looked through at the end, and here."""
    assert response.status_code in statuses, response.text
    if response.status_code >= 400:
        endpoint.client_texts.append(f"{response.headers} {response.text}")
        assert CANARY not in response.text and str(CANARY_AGE) not in response.text
    return response


@pytest.mark.parametrize("model", ["student", "teacher", "auto"])
def test_answers(endpoint: Endpoint, model: str) -> None:
    """In every form; a small model that cannot read the text may be answered 502."""
    body = {**canary_patient(), "model": model}
    kept(endpoint, endpoint.ask(**body), 200, 502)
    kept(endpoint, endpoint.client.post("/v1/diagnose?stream=true", json=body), 200, 502)
    kept(endpoint, endpoint.client.post("/v1/diagnose/batch", content=f"{json.dumps(body)}\n{{{CANARY}\n"), 200)
    kept(endpoint, endpoint.ask(patient={"age_years": CANARY_AGE, "mmse": 21}, model=model), 200, 502)
    if model != "auto":
        kept(endpoint, endpoint.client.post("/v1/chat/completions", json={**CHAT, "model": model}), 200)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/diagnose", {"patient": {"mmse": CANARY}}),
        ("/v1/diagnose", {"patient": {"age_years": 1000 + CANARY_AGE}}),
        ("/v1/diagnose", {"patient": {KEY: 1, "mmse": 21}}),
        ("/v1/diagnose", {"patient": {"findings": {KEY: "Mild", "hippocampal_atrophy": CANARY}}}),
        ("/v1/diagnose", {"description": CANARY, KEY: CANARY}),
        ("/v1/diagnose", {"description": CANARY, "model": CANARY}),
        ("/v1/diagnose", {"description": f"{CANARY} " * 5000}),
        ("/v1/chat/completions", {**CHAT, "model": CANARY}),
        ("/v1/chat/completions", {**CHAT, "model": "student", KEY: CANARY}),
        ("/v1/chat/completions", {"model": "student", "messages": [{"role": CANARY, "content": CANARY}]}),
        ("/v1/chat/completions", {"model": "student", "messages": [{"role": "user", "content": f"{CANARY} " * 2000}]}),
        ("/fhir/$diagnose", BUNDLE),
        ("/fhir/$diagnose", {KEY: CANARY}),
        (f"/v1/{CANARY}", {}),
    ],
)
def test_refusals(endpoint: Endpoint, path: str, body: dict[str, Any]) -> None:
    """Wrong values, unknown keys, prompts that do not fit, unknown paths."""
    kept(endpoint, endpoint.client.post(path, json=body), 400, 404, 413, 422)
    cut = f'{{"description": "{CANARY}"'
    kept(endpoint, endpoint.client.post(path, content=cut, headers={"content-type": "application/json"}), 400, 404, 422)


def test_a_key_that_looks_like_a_field_is_not_repeated(endpoint: Endpoint) -> None:
    for path, body in (
        ("/v1/diagnose", {CANARY: 1}),
        ("/v1/chat/completions", {**CHAT, "model": "student", CANARY: 1}),
    ):
        kept(endpoint, endpoint.client.post(path, json=body), 400, 422)


def test_headers_keys_paths_and_queries(endpoint: Endpoint) -> None:
    body = {**canary_patient(), "model": "student"}
    steering = ("x-session-id", "serve_multiplexed_model_id", "traceparent", "baggage", "user-agent", "referer")
    named = {"x-request-id": CANARY, **dict.fromkeys(steering, CANARY)}
    answered = kept(endpoint, endpoint.client.post("/v1/diagnose", json=body, headers=named), 200, 502)
    assert CANARY not in str(answered.headers)
    for headers in ({"authorization": f"Bearer {CANARY}"}, {"authorization": CANARY}, {"x-api-key": CANARY}):
        kept(endpoint, httpx.post(f"{endpoint.url}/v1/diagnose", json=body, headers=headers), 401)
    for path in (f"/{CANARY}?{CANARY}={CANARY}", f"/fhir/{CANARY}", f"/v1/models/{CANARY}"):
        kept(endpoint, endpoint.client.get(path), 404, 405)
    kept(endpoint, endpoint.client.post(f"/v1/diagnose?stream={CANARY}", json=body), 422)
    kept(endpoint, endpoint.client.post(f"/v1/diagnose?name={CANARY}", json=body), 200, 502)
    kept(endpoint, endpoint.client.request(CANARY.upper(), "/v1/diagnose"), 400, 405)


def test_uploads(endpoint: Endpoint) -> None:
    """In the names of files and parts, and in a header of a scan."""
    scan, _ = phantom_files(description=CANARY)
    request = json.dumps({"patient": {"mmse": 21}, "model": "student"})
    named = (f"{CANARY}.nii.gz", scan, f"application/{CANARY}")
    kept(endpoint, endpoint.client.post("/v1/diagnose", data={"request": request}, files={"scan": named}), 200, 502)
    for files, data in (
        ({"scan": (f"{CANARY}.nii", b"\x5c\x01\x00\x00" + CANARY.encode())}, {"request": request}),
        ({"slices": (f"{CANARY}.png", CANARY.encode())}, {"request": request}),
        ({KEY: (CANARY, scan)}, {"request": request}),
        ({"scan": named}, {"request": f'{{"{KEY}": "{CANARY}"}}'}),
        ({"segmentation": named}, {"request": request, "segmenter": f"../{CANARY}"}),
    ):
        kept(endpoint, endpoint.client.post("/v1/diagnose", data=data, files=files), 400, 415, 422)


def test_a_client_that_goes_away(endpoint: Endpoint) -> None:
    """In the middle of a stream, of a whole answer, and of its own body."""
    body = json.dumps({**canary_patient(), "model": "teacher"}).encode()
    for path, sent in (("/v1/diagnose?stream=true", body), ("/v1/diagnose", body), ("/v1/diagnose", body[:40])):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {endpoint.tokens['suite']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(endpoint.host, timeout=30) as connection:
            connection.sendall(head.encode() + sent)
            connection.settimeout(0.3)
            with suppress(TimeoutError):
                connection.recv(200)
    idle = "clinical_reasoner_in_work"
    eventually(lambda: in_work(endpoint, idle) == 0, 20, "what nobody waits for ends")


def in_work(endpoint: Endpoint, name: str) -> float:
    lines = endpoint.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


def test_metrics_and_traces(endpoint: Endpoint) -> None:
    """Ours, and those that Ray keeps of all its processes; Ray's tracing is off."""
    ports = {file.read_text().strip() for file in endpoint.ray.rglob("metrics_export_port_*")}
    assert ports
    for url in (f"{endpoint.url}/metrics", *(f"http://127.0.0.1:{port}/metrics" for port in ports)):
        text = httpx.get(url, timeout=30).text
        assert "# HELP" in text and CANARY not in text and str(CANARY_AGE) not in text
        endpoint.client_texts.append(text)
