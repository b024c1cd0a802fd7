"""What the teacher is asked: which questions about which splits, how often, with which exemplars, at what length."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.records import Ask, Split

ExemplarOrder = Literal["labels_in_turn", "file", "shuffled"]
ExemplarSelection = Literal["fixed", "random", "nearest"]
Length = Literal["brief", "standard", "detailed"]
Samples = Annotated[int, Field(ge=1, le=64)]

LENGTHS: dict[Length, tuple[int, int]] = {"brief": (50, 120), "standard": (200, 300), "detailed": (350, 500)}
"""Words asked for, from and to."""
TOKENS_PER_WORD = 4 / 3
"""Of English text under the usual vocabularies; smaller ones need more."""

_ASKED: dict[Ask, tuple[Split, ...]] = {
    "rationalize": ("train",),
    "diagnose": ("validation", "test"),
    "direct": ("test",),
}


class LengthBounds(StrictConfig):
    """How long a rationale may be to be trained on."""

    min_words: int = Field(default=8, ge=1)
    """Fewest words."""
    max_words: int = Field(default=600, ge=1)
    """Most words."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> LengthBounds:
        if self.max_words < self.min_words:
            raise ValueError(f"max_words {self.max_words} is below min_words {self.min_words}: no rationale fits")
        return self


class RationalesConfig(StrictConfig):
    asks: dict[Ask, tuple[Split, ...]] = _ASKED
    """Splits that each ask is put about; an ask that is not named keeps its default. `rationalize` (train): the
    diagnosis is told and the rationale asked for, what students learn from; `diagnose` (validation, test): few-shot
    reasoning, then the diagnosis; the endpoint's operating point is fitted on `validation`; `direct` (test): the
    diagnosis alone; `diagnose_zero_shot` (none): as `diagnose` without exemplars; `diagnose_label_first` (none):
    few-shot, the diagnosis and then the findings that support it."""
    samples: Samples | dict[Ask, Samples] = 1
    """Answers per ask and visit: a number for all, or one for each ask that is named and 1 for the others. More than 1
    needs `teacher.sampling.temperature` above 0; the answer is then the label that most samples name."""
    shots: int = Field(default=3, ge=0, le=16)
    """Exemplars in the prompts of asks that use them; `direct` and `diagnose_zero_shot` have none."""
    exemplar_choice: ExemplarSelection = "fixed"
    """`fixed`: the first ones in `exemplar_order`; `random`: others for each visit, drawn by its id and
    `teacher.sampling.seed`; `nearest`: those whose grades, MMSE and age are most like the patient's. Never one with the
    patient's own description."""
    exemplar_order: ExemplarOrder = "labels_in_turn"
    """Order in a prompt: the labels in turn, each in the order of the file; `file`; or `shuffled` by
    `teacher.sampling.seed`, the same for all."""
    length: Length | Annotated[int, Field(ge=20, le=2000)] | None = None
    """Length of the rationale asked for: `brief` (50 to 120 words), `standard` (200 to 300; the method's paper has
    269.4 on average), `detailed` (350 to 500), or about this number of words. None leaves it open. Students are not
    asked for a length."""
    accepted_words: LengthBounds = LengthBounds()
    """Rationales that are shorter or longer are not trained on."""
    token_candidates: int = Field(default=0, ge=0, le=20)
    """Tokens that are kept with their log-probabilities at each place of an answer with a rationale, the most probable
    ones, for arms with `token_distillation`; 0 keeps none. Only of teachers in an engine of the cluster."""
    rows_per_block: int = Field(default=50, ge=1)
    """Asks per block of work: what a kill can lose at the most, for each engine."""

    @field_validator("asks")
    @classmethod
    def _asked_of_teachers(cls, asks: dict[Ask, tuple[Split, ...]]) -> dict[Ask, tuple[Split, ...]]:
        if "explain" in asks:
            raise ValueError(
                "'explain' is a task of students: without a diagnosis no rationale of a teacher is selected"
            )
        return asks

    def splits_of(self, ask: Ask) -> tuple[Split, ...]:
        return self.asks.get(ask, _ASKED.get(ask, ()))

    def samples_of(self, ask: Ask) -> int:
        return self.samples if isinstance(self.samples, int) else self.samples.get(ask, 1)

    def words(self) -> str | None:
        """The length asked for as a prompt says it: "50 to 120", "about 150"."""
        if self.length is None:
            return None
        return f"about {self.length}" if isinstance(self.length, int) else "{} to {}".format(*LENGTHS[self.length])

    def most_words(self) -> int:
        """Upper end of the length asked for; 0 where none is."""
        if self.length is None:
            return 0
        return self.length if isinstance(self.length, int) else LENGTHS[self.length][1]
