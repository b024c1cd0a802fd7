"""Splits by subject: a property of the person, not of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.cohort.splits import check_no_leak, split_of
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Split

SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.1, "test": 0.3}
IDS = [f"sub-{number:05d}" for number in range(5000)]

ids = st.text(min_size=1, max_size=20)
seeds = st.integers(0, 1000)


def test_splits_stay_what_they_were() -> None:
    # A change here moves people of existing cohorts between training and test.
    splits = [split_of(f"P{number}", SHARES, 7) for number in range(8)]
    assert " ".join(splits) == "validation validation test train train train validation test"


@given(patient=ids, seed=seeds, scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_split_does_not_depend_on_the_scale_of_the_shares(patient: str, seed: int, scale: float) -> None:
    scaled: dict[Split, float] = {name: share * scale for name, share in SHARES.items()}
    assert split_of(patient, SHARES, seed) == split_of(patient, scaled, seed)


@given(patient=ids, seed=seeds)
def test_no_one_falls_into_a_split_without_a_share(patient: str, seed: int) -> None:
    assert split_of(patient, {"train": 0.7, "validation": 0.0, "test": 0.3}, seed) != "validation"
    assert split_of(patient, {"train": 0.0, "validation": 0.0, "test": 0.3}, seed) == "test"


def test_split_of_a_person_is_independent_of_the_cohort() -> None:
    all_people = {patient: split_of(patient, SHARES, 7) for patient in IDS}
    some = {patient: split_of(patient, SHARES, 7) for patient in reversed(IDS[::3])}
    assert all(all_people[patient] == split for patient, split in some.items())


def test_shares_are_met_within_sampling_error_and_seeds_differ() -> None:
    first = [split_of(patient, SHARES, 1) for patient in IDS]
    second = [split_of(patient, SHARES, 2) for patient in IDS]
    for name, share in SHARES.items():
        error = (share * (1 - share) / len(IDS)) ** 0.5
        assert abs(first.count(name) / len(IDS) - share) < 4 * error
    agreement = sum(a == b for a, b in zip(first, second, strict=True)) / len(IDS)
    expected = sum(share**2 for share in SHARES.values())
    assert abs(agreement - expected) < 4 * (expected * (1 - expected) / len(IDS)) ** 0.5


def test_leak_is_refused_and_names_no_one() -> None:
    people: dict[str, Split] = {}
    check_no_leak(people, "ann", "train")
    check_no_leak(people, "bob", "test")
    check_no_leak(people, "ann", "train")
    with pytest.raises(UserError, match=r"^a person is in more than one split") as error:
        check_no_leak(people, "ann", "test")
    assert "ann" not in str(error.value)
