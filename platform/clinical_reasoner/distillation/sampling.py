"""The order of examples in an epoch: the same for every number of workers and after every restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor, log

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

BAND = 1.25
"""Lengths of one band are alike: the longest is at most so many times the shortest. To sort more finely would sort the
answers too, whose lengths tell the diagnosis, and make steps of one diagnosis each."""


class EpochSampler(Sampler[int]):
    """All examples in an order drawn for the epoch, those of like length in the same step where `lengths` are given.

    The first ones come again at the end until the last step is full, so that workers share it evenly.
    """

    def __init__(self, count: int, batch: int, seed: int, lengths: Sequence[int] | None = None) -> None:
        """`batch`: examples per optimizer step, over all workers."""
        self._count, self._batch, self._seed, self._lengths = count, batch, seed, lengths
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._count // self._batch) * self._batch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        if self._lengths is None:
            order = torch.randperm(self._count, generator=generator).tolist()
        else:
            bands = [floor(log(max(1, length), BAND)) for length in self._lengths]
            grouped = get_length_grouped_indices(bands, self._batch, generator=generator)
            order = longest_first(list(grouped), self._batch, self._lengths)
        full = (order * -(-len(self) // self._count))[: len(self)]
        return iter(full)


def longest_first(order: list[int], batch: int, lengths: Sequence[int]) -> list[int]:
    """Within each step: it learns the same, and its micro-batches are padded less."""
    steps = [order[start : start + batch] for start in range(0, len(order), batch)]
    return [index for step in steps for index in sorted(step, key=lambda one: -lengths[one])]
