"""Which exemplars stand in the prompt about a patient, and in which order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.rationales import ExemplarOrder, ExemplarSelection
from clinical_reasoner.evidence.description import Evidence, parse_description, without_question
from clinical_reasoner.llm.prompting import Exemplar, load_exemplars
from clinical_reasoner.task import DiagnosisTask, TaskError

FAR = {"mmse": 15.0, "age_years": 30.0}
"""Numbers by which patients are alike -> difference (points, years) from which on they are not alike at all: half of
the scale, and the span of most cohorts."""


@dataclass(frozen=True)
class ExemplarChoice:
    """How the exemplars of a prompt are chosen. Deterministic: the same patient has the same ones on every machine."""

    pool: tuple[Exemplar, ...]
    """In the order of the file."""
    shots: int
    """Wanted; fewer where the patient is one of the pool and no other is left."""
    how: ExemplarSelection
    order: ExemplarOrder
    seed: int

    def choose(self, key: str, description: str, task: DiagnosisTask) -> tuple[Exemplar, ...]:
        """The exemplars for the patient of this description, who is never one of them. `key` names the patient where
        they are drawn at random."""
        if not self.shots:
            return ()
        patient = _words(description, task)
        others = self._ordered([one for one in self.pool if _words(one.description, task) != patient])
        if self.how == "random":
            drawn = _shuffled(others, f"{self.seed}|{key}")
            # In turn before the cut: as many of each label as there can be.
            others = in_turn(drawn) if self.order == "labels_in_turn" else drawn
        elif self.how == "nearest":
            evidence = _evidence(description, task)
            others.sort(key=lambda one: -nearness(evidence, _evidence(one.description, task)))
        return tuple(self._ordered(others[: self.shots]))

    def _ordered(self, exemplars: list[Exemplar]) -> list[Exemplar]:
        in_file = [one for one in self.pool if any(one is other for other in exemplars)]
        if self.order == "labels_in_turn":
            return in_turn(in_file)
        return _shuffled(in_file, str(self.seed)) if self.order == "shuffled" else in_file


NO_EXEMPLARS = ExemplarChoice((), 0, "fixed", "file", 0)


def exemplar_choice(config: PipelineConfig, task: DiagnosisTask) -> ExemplarChoice:
    """The choice that a run configures. Raises TaskError when the file has too few exemplars."""
    path, settings = config.task.exemplars or task.exemplars, config.rationales
    exemplars = load_exemplars(path, task)
    if len(exemplars) < settings.shots:
        raise TaskError(f"{path}: {len(exemplars)} exemplars, but rationales.shots={settings.shots}")
    seed = config.teacher.sampling.seed
    return ExemplarChoice(exemplars, settings.shots, settings.exemplar_choice, settings.exemplar_order, seed)


def in_turn(exemplars: Iterable[Exemplar]) -> list[Exemplar]:
    """The first of each label, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for exemplar in exemplars:
        turns.append((seen[exemplar.label], exemplar))
        seen[exemplar.label] += 1
    return [exemplar for _, exemplar in sorted(turns, key=lambda turn: turn[0])]


def nearness(one: Evidence, other: Evidence) -> float:
    """How alike two patients are, 0 to 1, higher = more alike: the mean of the share of findings with the same grade,
    and the closeness of each number of FAR (1 where equal, 0 from that difference on). What one of them lacks is not
    alike."""
    graded = {*one.grades, *other.grades}
    same = sum(one.grades.get(name) == other.grades.get(name) for name in graded) / max(1, len(graded))
    close = [
        max(0.0, 1 - abs(_number(one.fields[name]) - _number(other.fields[name])) / far)
        if name in one.fields and name in other.fields
        else 0.0
        for name, far in FAR.items()
    ]
    return (same + sum(close)) / (1 + len(FAR))


def _shuffled(exemplars: Iterable[Exemplar], seed: str) -> list[Exemplar]:
    """By a hash of name and seed: without one exemplar the others keep their order."""
    return sorted(exemplars, key=lambda one: hashlib.sha256(f"{seed}|{one.name}".encode()).digest())


def _number(text: str) -> float:
    """Of "90+" the 90."""
    return float(text.rstrip("+"))


@lru_cache(maxsize=4096)
def _words(description: str, task: DiagnosisTask) -> tuple[str, ...]:
    """For comparison: the question and the breaks of lines make no other patient."""
    return tuple(without_question(description, task).split())


@lru_cache(maxsize=4096)
def _evidence(description: str, task: DiagnosisTask) -> Evidence:
    return parse_description(description, task)
