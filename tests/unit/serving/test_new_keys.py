from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from clinical_reasoner.errors import UserError
from clinical_reasoner.serving.keys import digest_of, new_token, read_keyring
from clinical_reasoner.serving.new_keys import add_key, revoke_key
from clinical_reasoner.storage import JOB_VARIABLE

NOW = datetime.now(UTC)
SETTINGS = {"models": ["student"], "requests_per_minute": 7, "expires": date(2099, 1, 2)}


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_added_key_opens_and_only_its_hash_is_stored(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    tokens = [add_key(str(file), key_id, SETTINGS) for key_id in ("one", "two")]
    text = file.read_text(encoding="utf-8")
    keyring = read_keyring(str(file))
    for key_id, token in zip(("one", "two"), tokens, strict=True):
        assert token not in text
        assert token.removeprefix("cr_") not in text
        assert digest_of(token) in text
        found = keyring.find(token, NOW)
        assert found is not None
        assert (found.id, found.models, found.requests_per_minute, found.expires) == (
            key_id,
            ("student",),
            7,
            date(2099, 1, 2),
        )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [name]
    if name.endswith("json"):
        json.loads(text)


def test_left_out_settings_have_their_defaults(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.yaml")
    add_key(file, "one", {"models": None, "requests_per_minute": None, "expires": None})
    assert read_keyring(file).keys[0].requests_per_minute == 120


def test_revoked_key_stays_known_and_opens_no_more(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.yaml")
    gone, kept = add_key(file, "gone"), add_key(file, "kept", SETTINGS)
    revoke_key(file, "gone")
    keyring = read_keyring(file)
    assert keyring.find(gone, datetime.now(UTC)) is None
    assert keyring.find(kept, datetime.now(UTC)) is not None
    assert keyring.with_id("gone") is not None
    with pytest.raises(UserError, match="there is a key 'gone'"):
        add_key(file, "gone")


def test_the_only_key_can_be_revoked_and_an_earlier_expiry_stays(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.yaml")
    past = (NOW - timedelta(days=9)).date()
    add_key(file, "only", {"expires": past})
    revoke_key(file, "only")
    assert read_keyring(file).keys[0].expires == past


def test_what_cannot_be_done_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    add_key(str(file), "one")
    before = file.read_bytes()
    with pytest.raises(UserError, match="there is a key 'one'"):
        add_key(str(file), "one")
    with pytest.raises(UserError, match="there is no key 'two'; it has one"):
        revoke_key(str(file), "two")
    with pytest.raises(UserError, match=r"keys\.0\.models\.0"):
        add_key(str(file), "two", {"models": ["gpt"]})
    with pytest.raises(UserError, match=r"keys\.0\.id"):
        add_key(str(file), "no good")
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["keys.yaml"]


def test_unreadable_file_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("keys: [", encoding="utf-8")
    with pytest.raises(UserError, match="not readable"):
        add_key(str(file), "one", token_file=str(tmp_path / "token"))
    assert file.read_text(encoding="utf-8") == "keys: ["
    assert [one.name for one in tmp_path.iterdir()] == ["keys.yaml"]


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        revoke_key(str(tmp_path / "none.yaml"), "one")
    with pytest.raises(UserError, match="cannot be written"):
        add_key(str(tmp_path / "none" / "keys.yaml"), "one")


def test_two_changes_at_once_do_not_lose_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    add_key(str(file), "one")
    draft = tmp_path / "keys.yaml.new"
    draft.touch()
    with pytest.raises(UserError, match="is there already"):
        add_key(str(file), "two")
    assert draft.exists(), "it belongs to the other"
    assert len(read_keyring(str(file)).keys) == 1


def test_token_file_is_new_and_private(tmp_path: Path) -> None:
    file, kept = str(tmp_path / "keys.yaml"), tmp_path / "token"
    token = add_key(file, "one", token_file=str(kept))
    assert kept.read_text(encoding="utf-8").strip() == token
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="is there already"):
        add_key(file, "two", token_file=str(kept))
    assert len(read_keyring(file).keys) == 1


def test_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "real.yaml")
    add_key(str(link), "one")
    assert link.is_symlink()
    assert len(read_keyring(str(tmp_path / "real.yaml")).keys) == 1


def test_the_new_file_has_the_mode_and_owner_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    add_key(str(file), "one")
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 4711, 4712)
    before = file.stat()
    revoke_key(str(file), "one")
    after = file.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_a_file_whose_owner_cannot_be_kept_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.yaml"
    add_key(str(file), "one")
    before = file.read_bytes()

    def not_allowed(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", not_allowed)
    with pytest.raises(UserError, match=r"its owner and group \(\d+:\d+\) cannot be kept \(PermissionError\)"):
        revoke_key(str(file), "one")
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["keys.yaml"]


def test_submitted_job_needs_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="temporary copy"):
        add_key("keys.yaml", "one")
    add_key(str(tmp_path / "keys.yaml"), "one")


def job(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/create_api_key.py", "--config", "configs/demo.yaml", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": "platform", **environment}, timeout=60
    )


def test_job_prints_the_token_once_and_stores_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys = f"serving.api_keys={file}"
    made = job(keys, "--id", "hospital-1", "--models", "auto,student", "--requests-per-minute", "9")
    assert made.returncode == 0, made.stderr
    token = made.stdout.split()[-1]
    assert len(token) == len(new_token())
    assert (made.stdout + made.stderr).count(token) == 1
    assert token not in file.read_text(encoding="utf-8")
    found = read_keyring(str(file)).find(token, datetime.now(UTC))
    assert found is not None
    assert (found.id, found.models, found.requests_per_minute) == ("hospital-1", ("auto", "student"), 9)
    assert job(keys, "--revoke", "hospital-1").returncode == 0
    assert read_keyring(str(file)).find(token, datetime.now(UTC)) is None


def test_submitted_job_prints_no_token(tmp_path: Path) -> None:
    file, kept = tmp_path / "keys.yaml", tmp_path / "token"
    submitted = {JOB_VARIABLE: "{}"}
    refused = job(f"serving.api_keys={file}", "--id", "one", **submitted)
    assert refused.returncode == 2
    assert "--token-file" in refused.stderr
    assert not file.exists()
    made = job(f"serving.api_keys={file}", "--id", "one", "--token-file", str(kept), **submitted)
    assert made.returncode == 0, made.stderr
    assert "cr_" not in made.stdout + made.stderr
    assert read_keyring(str(file)).find(kept.read_text(encoding="utf-8").strip(), datetime.now(UTC)) is not None


@pytest.mark.parametrize("arguments", [["--id", "a"], ["serving.api_keys=/x/keys.yaml"]])
def test_job_says_what_is_missing(arguments: list[str]) -> None:
    done = job(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give serving.api_keys=FILE, and --id NAME or --revoke NAME" in done.stderr
