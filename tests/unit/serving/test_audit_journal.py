"""Whose a journal is: locks, and what happens when two writers look at the same file in the same moment."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from clinical_reasoner.serving.audit_journal import abandoned, new_journal

NAME = "20260131T090500-0123456789ab-00001.jsonl"


def test_journal_in_use_is_nobody_elses(tmp_path: Path) -> None:
    journal = new_journal(tmp_path / NAME)
    assert journal is not None
    assert abandoned(tmp_path / NAME) is None
    journal.append(b"{}\n", 1)
    journal.close()
    left = abandoned(tmp_path / NAME)
    assert left is not None
    assert left.content() == b"{}\n"
    left.remove()
    assert abandoned(tmp_path / NAME) is None


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "deleted and made again"])
def test_file_deleted_before_it_was_locked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """What is appended to a file without a name would be gone."""
    lock = fcntl.flock

    def after_another_writer(descriptor: int, how: int) -> None:
        (tmp_path / NAME).unlink()
        if again:
            (tmp_path / NAME).touch()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_another_writer)
    assert new_journal(tmp_path / NAME) is None
    (tmp_path / NAME).touch()
    assert abandoned(tmp_path / NAME) is None


def test_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    journal = new_journal(tmp_path / NAME)
    assert journal is not None
    journal.set_aside()
    assert [file.name for file in tmp_path.iterdir()] == ["20260131T090500-0123456789ab-00001.damaged"]
