"""When the teacher is asked."""

from __future__ import annotations

import pytest

from clinical_reasoner.serving.cascade import Decision, route


@pytest.mark.parametrize(
    ("probabilities", "threshold", "decision"),
    [
        ((0.05, 0.04, 0.91), 0.8, Decision(False, "student confident: 0.91 >= 0.80")),
        ((0.55, 0.40, 0.05), 0.8, Decision(True, "student below threshold: 0.55 < 0.80")),
        ((0.8, 0.2, 0.0), 0.8, Decision(False, "student confident: 0.80 >= 0.80")),
        ((0.7996, 0.2004), 0.8, Decision(True, "student below threshold: 0.7996 < 0.8000")),
        ((0.4, 0.3, 0.3), 0.0, Decision(False, "student confident: 0.40 >= 0.00")),
        ((0.999, 0.001), 1.0, Decision(True, "student below threshold: 0.999 < 1.000")),
        (None, 0.0, Decision(True, "student gave no usable answer")),
        ((), 0.0, Decision(True, "student gave no usable answer")),
    ],
)
def test_route(probabilities: tuple[float, ...] | None, threshold: float, decision: Decision) -> None:
    assert route(probabilities, threshold) == decision
