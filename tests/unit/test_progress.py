"""Progress in a log: lines now and then, and always the last one."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from clinical_reasoner import progress
from clinical_reasoner.progress import ProgressBar


def test_log_has_a_line_when_all_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("answers", 3) as bar:
        for done in range(1, 4):
            bar.update(done, f"loss {done}")
    assert capsys.readouterr().out == "answers: 3 of 3 loss 3\n"


def test_log_has_a_line_after_each_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 16.0, 16.0, 20.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with ProgressBar("answers", 9) as bar:
        bar.update(1)  # after 10 s: too soon
        bar.update(2)  # after 16 s: a line
        bar.update(3, total=12)  # 4 s later: too soon
    assert capsys.readouterr().out == "answers: 2 of 9\n"


def test_work_that_tells_nothing_is_watched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0.0)
    done: list[str] = []
    with progress.watched("rows", 3, lambda: (len(done), "")):
        for row in "abc":
            done.append(row)
            time.sleep(0.1)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "rows: 3 of 3" and "rows: 1 of 3" in said
    with pytest.raises(OSError, match="lost"), progress.watched("rows", 3, lambda: (0, "")):
        raise OSError("lost")
