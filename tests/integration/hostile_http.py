"""Hostile requests as such: heads, lengths, content types, paths, and the bodies of the FHIR and OpenAI routes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

from tests.integration.hostile_case import JSON, Hostile
from tests.integration.hostile_json import nested

GOOD = json.dumps({"patient": {"mmse": 22}, "model": "student"}).encode()
HOST, KEY = b"Host: a\r\n", b"Authorization: Bearer KEY\r\n"
TYPE, LENGTH = b"Content-Type: application/json\r\n", b"Content-Length: %d\r\n" % len(GOOD)
POST = b"POST /v1/diagnose HTTP/1.1\r\n"
WHOLE = POST + HOST + KEY + TYPE
CHUNKED = b"Transfer-Encoding: chunked\r\n"
PATHS = (
    "/../../etc/passwd",
    "/v1/diagnose/../../../etc/passwd",
    "/page/../../../../etc/passwd",
    "/page/..%2f..%2f..%2fetc%2fpasswd",
    "/page/%2e%2e/%2e%2e/serve/api.py",
    "/static/..\\..\\etc\\passwd",
    "/docs/%00",
    "//etc/passwd",
    "/v1/diagnose%2f..%2f..",
    "/%ff%fe",
    "/" + "a" * 5000,
    "/.git/config",
    "/.env",
)


def raw_requests() -> dict[str, bytes]:
    """By name; each is sent as it stands."""
    end = b"\r\n"
    return {
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
        "no version": b"POST /v1/diagnose\r\n\r\n",
        "unknown version": b"POST /v1/diagnose HTTP/9.9\r\n" + HOST + end,
        "unknown method": b"EVIL /v1/diagnose HTTP/1.1\r\n" + HOST + KEY + end,
        "method of a kilobyte": b"A" * 1000 + b" /v1/diagnose HTTP/1.1\r\n" + HOST + end,
        "no colon": POST + HOST + b"rubbish\r\n" + end,
        "blank before the colon": POST + HOST + b"X-A : b\r\n" + LENGTH + end + GOOD,
        "blank name": POST + HOST + b": b\r\n" + end,
        "NUL in a value": POST + HOST + b"X-A: a\0b\r\n" + end,
        "line break alone": POST + HOST + b"X-A: a\nX-B: b\rX-C: c\r\n" + end,
        "two lengths": WHOLE + LENGTH + b"Content-Length: 5\r\n" + end + GOOD,
        "negative length": WHOLE + b"Content-Length: -1\r\n" + end + GOOD,
        "length of words": WHOLE + b"Content-Length: many\r\n" + end + GOOD,
        "length with a plus": WHOLE + b"Content-Length: +%d\r\n" % len(GOOD) + end + GOOD,
        "length in hexadecimal": WHOLE + b"Content-Length: 0x10\r\n" + end + GOOD,
        "length of 400 digits": WHOLE + b"Content-Length: " + b"9" * 400 + end + end + GOOD,
        "length of a terabyte": WHOLE + b"Content-Length: 1099511627776\r\n" + end + GOOD,
        "length above the limit": WHOLE + b"Content-Length: 1048577\r\n" + end + GOOD,
        "length and chunks": WHOLE + LENGTH + CHUNKED + end + b"0\r\n\r\n" + GOOD,
        "chunk that is no number": WHOLE + CHUNKED + end + b"zz\r\n" + GOOD,
        "negative chunk": WHOLE + CHUNKED + end + b"-1\r\n" + GOOD,
        "chunk of 400 digits": WHOLE + CHUNKED + end + b"F" * 400 + b"\r\n" + GOOD,
        "chunks of too much": WHOLE + CHUNKED + end + b"200000\r\n" + b" " * 2**21 + b"\r\n0\r\n\r\n",
        "unknown transfer encoding": WHOLE + b"Transfer-Encoding: evil\r\n" + end + GOOD,
        "head of a megabyte": WHOLE + b"X-A: " + b"a" * 2**20 + end + end,
        "ten thousand headers": WHOLE + b"".join(b"X-%d: a\r\n" % number for number in range(10_000)) + end,
        "line of a megabyte": b"POST /" + b"a" * 2**20 + b" HTTP/1.1\r\n" + HOST + end,
        "no key": POST + HOST + TYPE + LENGTH + end + GOOD,
        "two keys": WHOLE + KEY + LENGTH + end + GOOD,
        "key of a kilobyte": POST + HOST + b"Authorization: Bearer " + b"a" * 1000 + end + TYPE + LENGTH + end + GOOD,
        "key with orders": POST + HOST + b"Authorization: Bearer ' OR 1=1 --\r\n" + TYPE + LENGTH + end + GOOD,
        "key of other letters": POST + HOST + b"X-Api-Key: \xe2\x82\xac\xff\r\n" + TYPE + LENGTH + end + GOOD,
        "key in another scheme": POST + HOST + b"Authorization: Digest KEY\r\n" + TYPE + LENGTH + end + GOOD,
        "smuggled request": WHOLE
        + b"Content-Length: 4\r\n"
        + CHUNKED
        + end
        + b"5c\r\nGET /admin HTTP/1.1\r\n\r\n0\r\n\r\n",
        "upgrade": b"GET /v1/diagnose HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + HOST + end,
    }


def lengths_and_kinds() -> dict[str, tuple[bytes, dict[str, str]]]:
    """Body and headers."""
    packed = gzip.compress(bytes(2**26))
    return {
        "gzip": (gzip.compress(GOOD), {"content-type": JSON, "content-encoding": "gzip"}),
        "gzip bomb": (packed, {"content-type": JSON, "content-encoding": "gzip"}),
        "Brotli": (GOOD, {"content-type": JSON, "content-encoding": "br"}),
        "two encodings": (GOOD, {"content-type": JSON, "content-encoding": "gzip, deflate"}),
        "unknown encoding": (GOOD, {"content-type": JSON, "content-encoding": "evil"}),
        "gzip that is not said": (gzip.compress(GOOD), {"content-type": JSON}),
        "more than a MiB": (b'{"description": "' + b"a" * 2**20 + b'"}', {"content-type": JSON}),
        "a MiB of blanks": (b" " * (2**20 + 1), {"content-type": JSON}),
        "a form of fields": (b"patient=22&model=student", {"content-type": "application/x-www-form-urlencoded"}),
        "XML": (b"<patient/>", {"content-type": "application/xml"}),
        "UTF-16": ('{"patient": {"mmse": 22}}'.encode("utf-16"), {"content-type": "application/json; charset=utf-16"}),
        "no kind": (b"\x00\x01\x02", {}),
        "kind of a kilobyte": (b"{", {"content-type": "a" * 1000}),
    }


def bundle(*resources: Any, **fields: Any) -> dict[str, Any]:
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries, **fields}


PATIENT = {"resourceType": "Patient", "id": "a", "birthDate": "1950-01-01"}


def observation(**fields: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "72106-8"}]}
    about = {"subject": {"reference": "Patient/a"}, "effectiveDateTime": "2026-01-01"}
    return {"resourceType": "Observation", "status": "final", "code": code, **about, **fields}


def bundles() -> dict[str, bytes]:
    score = {"value": 22, "unit": "score"}
    parsed: dict[str, Any] = {
        "a list": [],
        "a text": "Bundle",
        "another resource": PATIENT,
        "no type": {"resourceType": "Bundle"},
        "empty": bundle(),
        "no patient": bundle(observation(valueQuantity=score)),
        "two patients": bundle(PATIENT, {**PATIENT, "id": "b"}, observation(valueQuantity=score)),
        "entries of numbers": {"resourceType": "Bundle", "type": "collection", "entry": [1, 2]},
        "an unknown resource": bundle(PATIENT, {"resourceType": "__class__"}),
        "a score of 99": bundle(PATIENT, observation(valueQuantity={**score, "value": 99})),
        "a score of 1e300": bundle(PATIENT, observation(valueQuantity={**score, "value": 1e300})),
        "a score of words": bundle(PATIENT, observation(valueQuantity={**score, "value": "many"})),
        "a birth in the year 0": bundle({**PATIENT, "birthDate": "0000-00-00"}, observation(valueQuantity=score)),
        "a birth in the future": bundle({**PATIENT, "birthDate": "2999-01-01"}, observation(valueQuantity=score)),
        "unknown elements": bundle({**PATIENT, "evil": True}, observation(valueQuantity=score)),
    }
    return {
        **{name: json.dumps(body).encode() for name, body in parsed.items()},
        "no JSON": b"<Bundle xmlns='http://hl7.org/fhir'/>",
        "NaN": b'{"resourceType": "Bundle", "type": "collection", "total": NaN}',
        "a key twice": b'{"resourceType": "Bundle", "resourceType": "Bundle", "type": "collection"}',
        "a number of 5000 digits": b'{"resourceType": "Bundle", "type": "collection", "total": ' + b"9" * 5000 + b"}",
        "deep": b'{"resourceType": "Bundle", "type": "collection", "entry": ' + nested(50_000, "list") + b"}",
    }


def chats() -> dict[str, bytes]:
    says: dict[str, Any] = {"model": "student", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    bodies: dict[str, Any] = {
        "a list": [],
        "no model": {"messages": says["messages"]},
        "an unknown model": {**says, "model": "gpt-4"},
        "a model's path": {**says, "model": "../../etc/passwd"},
        "no messages": {"model": "student"},
        "empty messages": {**says, "messages": []},
        "a message of a number": {**says, "messages": [22]},
        "an unknown role": {**says, "messages": [{"role": "evil", "content": "x"}]},
        "content of a number": {**says, "messages": [{"role": "user", "content": 22}]},
        "a picture from elsewhere": {
            **says,
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
            ],
        },
        "negative tokens": {**says, "max_tokens": -1},
        "tokens without end": {**says, "max_tokens": 10**12},
        "a temperature of words": {**says, "temperature": "hot"},
        "a temperature of 1e300": {**says, "temperature": 1e300},
        "ten thousand answers": {**says, "n": 10_000},
        "a template of its own": {**says, "chat_template": "{{ messages.__class__ }}"},
        "a prompt that does not fit": {**says, "messages": [{"role": "user", "content": "scan " * 9000}]},
        "an evil expression": {**says, "structured_outputs": {"regex": "(a+)+$" * 50}},
    }
    return {
        **{name: json.dumps(body).encode() for name, body in bodies.items()},
        "NaN": b'{"model": "student", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        "no JSON": b"{",
    }


def cases() -> Iterator[Hostile]:
    for name, request in raw_requests().items():
        yield Hostile("heads", name, raw=request)
    for path in PATHS:
        line = f"GET {path} HTTP/1.1\r\n".encode("latin-1")
        yield Hostile("paths", path[:40], raw=line + HOST + KEY + b"Connection: close\r\n\r\n")
    for name, (content, headers) in lengths_and_kinds().items():
        yield Hostile("lengths and kinds", name, content, headers=headers)
    for name, content in bundles().items():
        headers = {"content-type": "application/fhir+json"}
        yield Hostile("FHIR", name, content, "/fhir/$diagnose", headers)
    for name, content in chats().items():
        yield Hostile("chat", name, content, "/v1/chat/completions")
    for name, content in {"blank": b"\n \n", "empty": b"", "too many": (GOOD + b"\n") * 1001}.items():
        yield Hostile("batch", name, content, "/v1/diagnose/batch", {"content-type": "application/x-ndjson"})
