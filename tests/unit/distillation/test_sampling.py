"""The order of examples: full steps, nobody left out, and the same wherever it is drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.distillation.sampling import EpochSampler


def order(count: int, batch: int, seed: int = 0, epoch: int = 0, lengths: list[int] | None = None) -> list[int]:
    sampler = EpochSampler(count, batch, seed, lengths)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 50),
    grouped=st.booleans(),
)
def test_steps_are_full_and_every_example_is_in_the_epoch(
    count: int, batch: int, seed: int, epoch: int, grouped: bool
) -> None:
    lengths = [7 * place % 13 + 1 for place in range(count)] if grouped else None
    drawn = order(count, batch, seed, epoch, lengths)
    assert len(drawn) % batch == 0
    assert count <= len(drawn) < count + batch
    assert set(drawn) == set(range(count))
    assert sorted(drawn[:count]) == list(range(count)), "nobody comes twice before all have come"
    assert drawn == order(count, batch, seed, epoch, lengths)


@pytest.mark.parametrize("lengths", [None, [place % 7 for place in range(64)]])
def test_another_epoch_and_another_seed_have_another_order(lengths: list[int] | None) -> None:
    orders = [order(64, 8, seed, epoch, lengths) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(one) for one in orders}) == 6


def test_an_epoch_is_drawn_again_after_a_restart() -> None:
    going = EpochSampler(40, 16, seed=3)
    first = list(going)
    going.set_epoch(1)
    second = list(going)
    assert first != second
    assert second == order(40, 16, seed=3, epoch=1)
    going.set_epoch(0)
    assert list(going) == first


def padded_share(lengths: list[int], batch: int, drawn: list[int]) -> float:
    """Share of the tokens of all steps that is padding."""
    steps = [[lengths[place] for place in drawn[start : start + batch]] for start in range(0, len(drawn), batch)]
    return 1 - sum(map(sum, steps)) / sum(batch * max(step) for step in steps)


def test_examples_of_like_length_are_in_the_same_step() -> None:
    lengths = [200 + (37 * place) % 700 for place in range(320)]
    grouped, mixed = (padded_share(lengths, 8, order(320, 8, lengths=known)) for known in (lengths, None))
    assert grouped < 0.12 < 0.3 < mixed


def test_steps_have_their_longest_examples_first() -> None:
    lengths = [200 + (37 * place) % 700 for place in range(320)]
    steps = [[lengths[one] for one in order(320, 16, lengths=lengths)[at : at + 16]] for at in range(0, 320, 16)]
    assert all(step == sorted(step, reverse=True) and len(set(step)) > 1 for step in steps)


def test_lengths_do_not_sort_the_diagnoses() -> None:
    """The longer name of a diagnosis makes longer answers."""
    labels = [place % 3 for place in range(96)]
    lengths = [235 + 2 * label + place % 5 for place, label in enumerate(labels)]
    drawn = order(96, 12, lengths=lengths)
    steps = [[labels[place] for place in drawn[start : start + 12]] for start in range(0, 96, 12)]
    assert all(len(set(step)) == 3 for step in steps)
