"""The identity that decides whether a stage is skipped, and how a changed one is told."""

from __future__ import annotations

from typing import Any

import pytest

from clinical_reasoner.manifests import Manifest, difference, identity

SETTINGS: dict[str, Any] = {"cohort": {"size": 100, "kind": "synthetic"}, "seed": 1}
INPUTS = {"findings": "f1"}


def test_identity_depends_on_content_only() -> None:
    same = identity("a", {"x": 1, "y": [1, 2]}, {"u": "1", "v": "2"})
    assert same == identity("a", {"y": (1, 2), "x": 1}, {"v": "2", "u": "1"})
    assert len(same) == 64
    others = [
        identity("b", {"x": 1, "y": [1, 2]}, {"u": "1", "v": "2"}),
        identity("a", {"x": 1, "y": [2, 1]}, {"u": "1", "v": "2"}),
        identity("a", {"x": 1, "y": [1, 2]}, {"u": "1", "v": "3"}),
    ]
    assert len({same, *others}) == 4


@pytest.mark.parametrize(
    ("settings", "inputs", "told"),
    [
        ({**SETTINGS, "seed": 2}, INPUTS, "with other settings (seed: 1 -> 2)"),
        (
            {"cohort": {"size": 100, "sites": ("A",)}, "seed": 1},
            INPUTS,
            'with other settings (cohort.kind: "synthetic" -> (not set), cohort.sites: (not set) -> ["A"])',
        ),
        ({**SETTINGS, "cohort": {}}, INPUTS, "cohort: (not set) -> {}"),
        (SETTINGS, {"findings": "f2"}, "from other inputs (changed upstream: 'findings')"),
        (SETTINGS, {"slices": "s1"}, "from other inputs (changed upstream: 'findings', 'slices')"),
        (
            {**SETTINGS, "seed": 2},
            {"findings": "f2"},
            "with other settings (seed: 1 -> 2) and from other inputs (changed upstream: 'findings')",
        ),
        (SETTINGS, INPUTS, "under another identity"),
    ],
)
def test_difference_names_what_changed(settings: dict[str, Any], inputs: dict[str, str], told: str) -> None:
    found = Manifest(
        stage="rationales",
        identity="of another version",
        settings=SETTINGS,
        inputs=INPUTS,
        rows_in=1,
        rows_out=1,
        rows_rejected=0,
        created="2026-01-01T00:00:00+00:00",
        version="0",
        seconds=0,
    )
    assert told in difference(found, settings, inputs)
