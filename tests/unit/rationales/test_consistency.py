"""What several samples of an ask say together."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.rationales.consistency import Consensus, Vote, consensus, samples_together

LABELS = ("AD", "MCI", "NC")
SURE_AD, SURE_MCI, SURE_NC = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


@pytest.mark.parametrize(
    ("votes", "label", "agreement", "probabilities"),
    [
        ([("MCI", SURE_MCI)], "MCI", 1.0, SURE_MCI),
        ([("AD", None), ("AD", None), ("NC", None)], "AD", 2 / 3, None),
        # Most samples win, however sure the others are.
        (
            [("NC", (0.3, 0.3, 0.4)), ("NC", (0.3, 0.3, 0.4)), ("AD", (1.0, 0.0, 0.0))],
            "NC",
            2 / 3,
            (1.6 / 3, 0.2, 0.8 / 3),
        ),
        # As many samples: the higher sum of probabilities over all samples.
        ([("AD", (0.6, 0.4, 0.0)), ("MCI", SURE_MCI)], "MCI", 0.5, (0.35, 0.6, 0.05)),
        ([("NC", (0.0, 0.4, 0.6)), ("AD", (0.5, 0.0, 0.5))], "NC", 0.5, (0.25, 0.2, 0.55)),
        # Then the order of the labels, whatever the order of the samples.
        ([("NC", None), ("MCI", None)], "MCI", 0.5, None),
        ([("NC", SURE_NC), ("AD", SURE_AD)], "AD", 0.5, (0.45, 0.1, 0.45)),
        ([("NC", (0.3, 0.1, 0.6)), ("AD", (0.6, 0.1, 0.3)), (None, None)], "AD", 1 / 3, (0.45, 0.1, 0.45)),
        # An answer that could not be read agrees with none; the mean is over those with probabilities.
        ([("AD", SURE_AD), (None, None), (None, None)], "AD", 1 / 3, SURE_AD),
        ([("AD", None), ("NC", SURE_NC), ("AD", None)], "AD", 2 / 3, SURE_NC),
        ([(None, None), (None, None)], None, 0.0, None),
    ],
)
def test_majority_with_its_share(
    votes: list[Vote], label: str | None, agreement: float, probabilities: tuple[float, ...] | None
) -> None:
    said = consensus(votes, LABELS)
    assert said.label == label
    assert said.agreement == pytest.approx(agreement)
    assert said.probabilities == (None if probabilities is None else pytest.approx(probabilities))


def test_one_sample_is_as_it_is() -> None:
    odd = (0.1, 0.2, 0.7000000000000001)
    assert consensus([("NC", odd)], LABELS) == Consensus("NC", 1.0, odd)


def test_what_has_no_consensus() -> None:
    with pytest.raises(ValueError, match="no sample"):
        consensus([], LABELS)
    with pytest.raises(ValueError, match="FTD"):
        consensus([("FTD", None)], LABELS)


shares = st.lists(st.integers(1, 9), min_size=3, max_size=3).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@given(
    votes=st.lists(st.tuples(st.sampled_from([*LABELS, None]), st.none() | shares), min_size=1, max_size=9),
    seed=st.integers(0, 99),
)
def test_order_of_the_samples_does_not_matter(votes: list[Vote], seed: int) -> None:
    said = consensus(votes, LABELS)
    assert consensus(random.Random(seed).sample(votes, len(votes)), LABELS) == said
    named = [label for label, _ in votes if label]
    assert said.agreement == (named.count(said.label) / len(votes) if said.label else 0)
    assert all(named.count(label) <= named.count(said.label or "") for label in LABELS)
    if said.probabilities:
        assert sum(said.probabilities) == pytest.approx(1)


def row(patient: str, ask: str, sample: int, model: str = "m") -> dict[str, Any]:
    return {"model": model, "patient_id": patient, "visit_id": "bl", "ask": ask, "sample": sample}


def test_samples_of_one_model_visit_and_ask_come_together_in_the_order_of_the_table() -> None:
    rows = [
        row("b", "diagnose", 1),
        row("a", "diagnose", 0),
        row("b", "diagnose", 0),
        row("b", "direct", 0),
        row("b", "diagnose", 0, "other"),
    ]
    assert samples_together(rows) == [[rows[2], rows[0]], [rows[1]], [rows[3]], [rows[4]]]
    assert samples_together([]) == []
