"""Selection in numbers: of each teacher's answers which were accepted, why others were not, and what students get."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
from pydantic import Field

from clinical_reasoner.evaluation.cohort_counts import Frozen
from clinical_reasoner.evaluation.metrics import Estimate
from clinical_reasoner.evaluation.selection_counts import Row, SampleCounts, TeacherCounts, TextCounts, count_teachers
from clinical_reasoner.evaluation.selection_examples import RejectedExample, in_turn, rejected_example
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

PAPER_WORDS = 269.4
"""Words per rationale on average: Kwon et al. 2024, arXiv:2312.07399."""

VisitKey = tuple[str, str]
Descriptions = Callable[[Collection[VisitKey]], Mapping[VisitKey, str]]
"""From patient and visit ids to what the teacher read about them."""


class AskRows(Frozen):
    """Rows of one ask."""

    ask: Ask
    asked: int = Field(ge=1)
    parsed: int = Field(ge=0)
    """Answers that could be read."""
    accepted: int = Field(ge=0)
    """Those that passed every check."""
    rejected: int = Field(ge=0)
    selected: int = Field(ge=0)
    """Those of the training split that students of this teacher may learn from."""
    prompt_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)


class CoveredVisits(Frozen):
    """Visits of the training split by how their selected rationales came to the diagnosis."""

    reasoned: int = Field(ge=0)
    hinted: int = Field(ge=0)
    none_selected: int = Field(ge=0)

    @property
    def total(self) -> int:
        return self.reasoned + self.hinted + self.none_selected


class ReasonRows(Frozen):
    reason: str
    rows: int = Field(ge=1)
    by_ask: dict[Ask, int]
    """Asks without it have 0."""


class WordCount(Frozen):
    """Words per rationale."""

    mean: float
    median: float
    low: float
    """5th percentile."""
    high: float
    """95th percentile."""


class Texts(Frozen):
    rationales: int = Field(ge=1)
    words: WordCount
    claims_per_rationale: float = Field(ge=0)
    unsupported: Estimate | None
    """Share of all claims that are contradicted or not in evidence, with a bootstrap over people; None: no claims."""


class Agreement(Frozen):
    """Samples of one ask, over the visits that have more than one."""

    ask: Ask
    visits: int = Field(ge=1)
    agreement: float = Field(ge=0, le=1)
    """Mean share of a visit's samples that name the majority label."""
    unanimous: int = Field(ge=0)
    """Visits where all samples name the same."""
    majority_accuracy: float | None = Field(ge=0, le=1)
    """Over visits with a recorded diagnosis, as is the next one; None: there are none."""
    single_accuracy: float | None = Field(ge=0, le=1)
    """Mean accuracy of single samples."""


class TeacherSelection(Frozen):
    model: str
    asks: tuple[AskRows, ...]
    """In the order in which they first appear, as the model itself."""
    visits: CoveredVisits
    reasons: tuple[ReasonRows, ...]
    """The commonest first."""
    parsed: Texts | None
    """Rationales of all answers that could be read; None: there are none."""
    selected: Texts | None
    agreement: tuple[Agreement, ...]
    examples: tuple[RejectedExample, ...]
    """By reason, in the order of `reasons`."""

    @property
    def asked(self) -> int:
        """All rows."""
        return sum(one.asked for one in self.asks)


def summarise_selection(
    rows: Iterable[Row], descriptions: Descriptions, task: DiagnosisTask, *, examples: int, resamples: int, seed: int
) -> tuple[TeacherSelection, ...]:
    """Of each model of the `rationales` table, read once: its rows in their order, with the columns of
    selection_counts.COLUMNS. For each reject reason there are up to `examples` answers."""
    found = []
    for model, counts in count_teachers(rows, task.label_names, examples).items():
        asks = tuple(dict.fromkeys(ask for ask, _ in counts.rows))
        reasons = _reasons(counts, asks)
        shown = [row for one in reasons for row in in_turn(counts.rejected, one.reason, examples)]
        read = descriptions({_visit(row) for row in shown}) if shown else {}
        found.append(
            TeacherSelection(
                model=model,
                asks=tuple(AskRows(ask=ask, **_of_ask(counts, ask)) for ask in asks),
                visits=CoveredVisits(**{name: counts.visits[name] for name in CoveredVisits.model_fields}),
                reasons=reasons,
                parsed=_texts(counts.parsed, resamples, seed),
                selected=_texts(counts.selected, resamples, seed),
                agreement=tuple(_agreement(ask, samples) for ask, samples in counts.samples.items()),
                examples=tuple(rejected_example(row, read.get(_visit(row)), task) for row in shown),
            )
        )
    return tuple(found)


def _visit(row: Row) -> VisitKey:
    return row["patient_id"], row["visit_id"]


def _of_ask(counts: TeacherCounts, ask: Ask) -> dict[str, int]:
    return {name: number for (of, name), number in counts.rows.items() if of == ask}


def _reasons(counts: TeacherCounts, asks: tuple[Ask, ...]) -> tuple[ReasonRows, ...]:
    names = dict.fromkeys(reason for reason, _ in counts.reasons)
    by_reason = {name: {ask: counts.reasons[name, ask] for ask in asks} for name in names}
    found = [ReasonRows(reason=name, rows=sum(rows.values()), by_ask=rows) for name, rows in by_reason.items()]
    return tuple(sorted(found, key=lambda one: (-one.rows, one.reason)))


def _texts(counts: TextCounts, resamples: int, seed: int) -> Texts | None:
    if not counts.words:
        return None
    return Texts(
        rationales=len(counts.words),
        words=_word_count(counts.words),
        claims_per_rationale=counts.claims.total() / len(counts.words),
        unsupported=_share(counts, resamples, seed),
    )


def _word_count(words: array[int]) -> WordCount:
    low, median, high = np.quantile(words, (0.05, 0.5, 0.95)).tolist()
    return WordCount(mean=float(np.mean(words)), median=median, low=low, high=high)


def _share(counts: TextCounts, resamples: int, seed: int) -> Estimate | None:
    """All claims about a person are drawn together, as in metrics.py: they are not independent."""
    people = [person for person, number in counts.claims.items() if number]
    if not people:
        return None
    claims = np.array([counts.claims[person] for person in people])
    unsupported = np.array([counts.unsupported[person] for person in people])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(people), size=len(people)) for _ in range(resamples))
    shares = [unsupported[draw].sum() / claims[draw].sum() for draw in draws]
    low, high = np.quantile(shares, (0.025, 0.975)).tolist()
    return Estimate(value=float(unsupported.sum() / claims.sum()), low=low, high=high)


def _agreement(ask: Ask, counts: SampleCounts) -> Agreement:
    return Agreement(
        ask=ask,
        visits=counts.visits,
        agreement=counts.agreement / counts.visits,
        unanimous=counts.unanimous,
        majority_accuracy=counts.majority_right / counts.diagnosed if counts.diagnosed else None,
        single_accuracy=counts.single_right / counts.diagnosed if counts.diagnosed else None,
    )
