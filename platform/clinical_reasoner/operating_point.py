"""The operating point of the endpoint: what turns raw probabilities into a calibrated answer, a prediction set and a
routing decision. Evaluation writes it from the validation split, serving reads it.

Temperature scaling: Guo et al. 2017, arXiv:1706.04599. Prediction sets: split conformal prediction with the score
1 - P(true label), Vovk et al. 2005, doi:10.1007/b106715; Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clinical_reasoner.errors import UserError

OPERATING_POINT_FILE = "operating_point/operating_point.json"
"""Below the run folder."""
ALWAYS_TEACHER = 1.01
"""Threshold that no confidence reaches."""


class Tier(BaseModel):
    """One model behind the endpoint: student or teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """Its name when it was calibrated: arm of the student, name of the teacher."""
    ask: str
    """How it was asked; another ask has other probabilities."""
    temperature: float = Field(gt=0)
    """Divides the log-probabilities of the labels."""
    quantile: float | None = Field(default=None, ge=0, le=1)
    """Largest score 1 - P(label) with which a label is in the prediction set; None: too few visits for the coverage."""
    visits: int = Field(ge=0)
    """Visits of the validation split that it was calibrated on."""


class OperatingPoint(BaseModel):
    """The file; its name in answers and audit records is `version`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    labels: tuple[str, ...] = Field(min_length=2)
    """In the order of all probabilities."""
    prompt_version: str
    student: Tier
    teacher: Tier | None = None
    """None where the teacher was not asked about the validation split: its probabilities are then not calibrated."""
    threshold: float = Field(ge=0, le=ALWAYS_TEACHER)
    """`auto`: the student's answer stands when its calibrated confidence reaches this."""
    refer_below: float = Field(default=0.0, ge=0, le=1)
    """`auto`: where the student was unsure and the teacher's calibrated confidence is below this, the answer says to
    refer to a clinician. Without a teacher here its raw confidence is compared with `serving.threshold`."""
    coverage: float = Field(gt=0, lt=1)
    """Of the prediction sets: the share of patients whose true label is in theirs."""
    target: str
    """What the threshold was chosen for, in words."""
    note: str = ""
    """What a reader has to know, e.g. that patients were synthetic."""

    @model_validator(mode="after")
    def _labels_differ(self) -> OperatingPoint:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: one stands there twice")
        return self

    def refers_below(self, uncalibrated: float) -> float:
        """Confidence of the teacher below which an answer says to refer: `refer_below`, and `uncalibrated` where the
        teacher's confidence is as the model gave it."""
        return self.refer_below if self.teacher else uncalibrated

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that change with the content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def read_operating_point(content: bytes, place: str) -> OperatingPoint:
    """Raises UserError with the place and the field for a file that cannot be used."""
    try:
        return OperatingPoint.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "(file)"
        raise UserError(f"{place}: no operating point: {field}: {first['msg']}") from error


def prediction_set(probabilities: Mapping[str, float], quantile: float | None) -> tuple[str, ...] | None:
    """Labels whose score 1 - P is at most `quantile`, the most probable first; never empty, as the most probable one is
    always in it, which can only raise the coverage. None without a quantile."""
    if quantile is None:
        return None
    ordered = sorted(probabilities, key=lambda name: -probabilities[name])
    admitted = [name for name in ordered if 1 - probabilities[name] <= quantile + 1e-12]
    return tuple(admitted or ordered[:1])
