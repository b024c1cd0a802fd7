"""What a job prints and returns when something goes wrong."""

from __future__ import annotations

import pytest

from clinical_reasoner.errors import UserError, reported


def test_user_error_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, reported():
        raise UserError("cohort.path: no file at 'x.csv'")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: cohort.path: no file at 'x.csv'\n"


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), reported():
        _ = 1 / 0
