from __future__ import annotations

import hmac
import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.errors import UserError
from clinical_reasoner.serving import keys as keys_module
from clinical_reasoner.serving.keys import ALL_MODELS, Key, Keyring, digest_of, new_token, parse_keys, read_keyring

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TOKENS = {name: f"cr_{name}" for name in ("first", "middle", "last")}
KEYRING = Keyring(tuple(Key(id=name, sha256=digest_of(token)) for name, token in TOKENS.items()))


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {len("cr_") + 43}  # 43 digits of 6 bits hold 256 bits
    assert all(token.startswith("cr_") for token in tokens)


@pytest.mark.parametrize("name", TOKENS)
def test_token_finds_its_key(name: str) -> None:
    found = KEYRING.find(TOKENS[name], NOW)
    assert found is not None
    assert found.id == name


@pytest.mark.parametrize("token", ["", "cr_", "cr_firs", "cr_first ", "CR_FIRST", "é\udc00", digest_of("cr_first")])
def test_nothing_else_finds_a_key(token: str) -> None:
    assert KEYRING.find(token, NOW) is None


@pytest.mark.parametrize("token", [*TOKENS.values(), "cr_unknown"])
def test_every_hash_is_compared_whichever_key_it_is(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(left: str, right: str) -> bool:
        compared.append(right)
        return hmac.compare_digest(left, right)

    class Compare:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(keys_module, "hmac", Compare)
    KEYRING.find(token, NOW)
    assert compared == [key.sha256 for key in KEYRING.keys]


def test_key_is_refused_from_the_day_of_its_expiry_on() -> None:
    keyring = Keyring((Key(id="a", sha256=digest_of("t"), expires=date(2026, 6, 2)),))
    midnight = datetime(2026, 6, 2, tzinfo=UTC)
    assert keyring.find("t", midnight - timedelta(seconds=1)) is not None
    assert keyring.find("t", midnight) is None
    west = timezone(timedelta(hours=-5))
    assert keyring.find("t", datetime(2026, 6, 1, 20, tzinfo=west)) is None, "the day is that of UTC"


@pytest.mark.parametrize("as_json", [True, False])
def test_file_is_yaml_or_json(tmp_path: Path, as_json: bool) -> None:
    digest = digest_of("t")
    text = f"keys:\n- {{id: a, sha256: '{digest}', models: [student], requests_per_minute: 3, expires: 2027-01-01}}\n"
    if as_json:
        entry = {"id": "a", "sha256": digest, "models": ["student"], "requests_per_minute": 3, "expires": "2027-01-01"}
        text = json.dumps({"keys": [entry]})
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8")
    expected = Key(id="a", sha256=digest, models=("student",), requests_per_minute=3, expires=date(2027, 1, 1))
    assert read_keyring(str(file)).keys == (expected,)


def test_defaults_are_all_models_and_no_expiry() -> None:
    key = KEYRING.keys[0]
    assert (key.models, key.expires) == (ALL_MODELS, None)
    assert set(ALL_MODELS) == {"auto", "student", "teacher"}


GOOD: dict[str, Any] = {"id": "a", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"keys": []}, "keys"),
        (None, "write `keys:`"),
        ([], "write `keys:`"),
        ({}, "keys"),
        ({"keys": [{**GOOD, "sha256": "0" * 63}]}, "keys.0.sha256"),
        ({"keys": [{**GOOD, "sha256": "G" * 64}]}, "keys.0.sha256"),
        ({"keys": [{**GOOD, "id": "a b"}]}, "keys.0.id"),
        ({"keys": [{**GOOD, "id": ""}]}, "keys.0.id"),
        ({"keys": [GOOD, {"id": "b"}]}, "keys.1.sha256"),
        ({"keys": [{**GOOD, "models": []}]}, "keys.0.models"),
        ({"keys": [{**GOOD, "models": ["gpt"]}]}, "keys.0.models.0"),
        ({"keys": [{**GOOD, "requests_per_minute": 0}]}, "keys.0.requests_per_minute"),
        ({"keys": [{**GOOD, "requests_per_minute": "9"}]}, "keys.0.requests_per_minute"),
        ({"keys": [{**GOOD, "expires": "soon"}]}, "keys.0.expires"),
        ({"keys": [GOOD, {**GOOD, "sha256": "1" * 64}]}, "two keys have the same id"),
        ({"keys": [GOOD, {**GOOD, "id": "b"}]}, "two keys have the same sha256"),
    ],
)
def test_error_names_the_file_and_the_field(content: Any, named: str) -> None:
    with pytest.raises(UserError, match=r"^/etc/keys\.yaml: ") as caught:
        parse_keys(json.dumps(content).encode(), "/etc/keys.yaml")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"keys: [",
        b"\xff\xfe",
        b"",
        b"keys:\n\t- a: b",
        b"keys: [{expires: 2027-02-30}]",
        b"2027-01-01: x",
        b"keys: &a [*a]",
    ],
)
def test_what_is_no_yaml_is_an_error_with_the_file(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^/etc/keys\.yaml"):
        parse_keys(content, "/etc/keys.yaml")


def test_missing_file_is_an_error_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_keyring(str(tmp_path / "none.yaml"))


def test_errors_repeat_no_token_that_stands_in_the_wrong_place() -> None:
    token = new_token()
    for entry in ({**GOOD, "sha256": token}, {**GOOD, token: 1}, {**GOOD, "id": token.upper()}, token):
        with pytest.raises(UserError) as caught:
            parse_keys(json.dumps({"keys": [entry]}).encode(), "keys.yaml")
        assert token.lower() not in str(caught.value).lower()
