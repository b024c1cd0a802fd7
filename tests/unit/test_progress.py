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
    assert capsys.readouterr().out == "answers: 2 of 9 about 42 s left\n"


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([(0.0, 0), (100.0, 50)], "answers: 50 of 100 (so far) about 2 min left\n"),
        ([(0.0, 0), (20.0, 50)], "answers: 50 of 100 (so far) about 20 s left\n"),
        ([(0.0, 80), (20.0, 90)], "answers: 90 of 100 (so far) about 20 s left\n"),
        ([(0.0, 80), (20.0, 80)], "answers: 80 of 100 (so far)\n"),
        ([(0.0, 80), (20.0, 100)], "answers: 100 of 100 (so far)\n"),
        ([(20.0, 80)], "answers: 80 of 100 (so far)\n"),
    ],
    ids=["minutes", "seconds", "what an earlier run did is not counted", "no step yet", "done", "first look"],
)
def test_log_says_how_long_the_rest_takes(
    looks: list[tuple[float, int]], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, *(at for at, _ in looks)])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with ProgressBar("answers", 100) as bar:
        for _, done in looks:
            bar.update(done, "(so far)")
    assert capsys.readouterr().out == said


def test_work_that_tells_nothing_is_watched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0.0)
    done: list[str] = []
    with progress.watched("rows", 3, lambda: (len(done), f"({len(done)} rejected)")):
        for row in "abc":
            done.append(row)
            time.sleep(0.1)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "rows: 3 of 3 (3 rejected)"
    assert any(line.startswith("rows: 1 of 3 (1 rejected)") for line in said)
    with pytest.raises(OSError, match="lost"), progress.watched("rows", 3, lambda: (0, "")):
        raise OSError("lost")
