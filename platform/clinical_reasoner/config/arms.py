"""Arms: what a student is trained to write, and how it is asked afterwards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clinical_reasoner.asks import ASK_KINDS, Ask
from clinical_reasoner.config.base import StrictConfig

ArmName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
RationaleSource = Literal["reasoned", "hinted", "unselected"]
"""Selected rationales that came to the diagnosis by themselves, selected ones whose prompt told it, and texts with a
rationale that were not selected."""


class ArmConfig(StrictConfig):
    """One way to train on the same table and split. The label is always the recorded diagnosis."""

    answers: Ask
    """Ask with which the finished student answers, without exemplars; one of `tasks`."""
    tasks: dict[Ask, Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """Ask -> loss weight of its examples; every visit gives one example of each."""
    diagnosis_weight: float = Field(default=1.0, ge=1)
    """Loss weight of the token that holds the option letter, beside 1 for all others."""
    soft_labels: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss at the option letter that is the divergence from the teacher's probabilities of the labels
    (KL(teacher || student) over the option letters); the rest is that of the recorded diagnosis."""
    token_distillation: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss at each token of the teacher's answer that is the divergence from the teacher's distribution
    (KL(teacher || student) over `rationales.token_candidates`); the rest is that of the token itself. Teacher and
    student must have the same tokens."""
    rationales: tuple[RationaleSource, ...] = Field(default=("reasoned", "hinted"), min_length=1)
    """Which of the teacher's rationales may be learnt from, the best one of a visit in this order."""

    @model_validator(mode="after")
    def _can_answer(self) -> ArmConfig:
        if self.answers not in self.tasks:
            raise ValueError(f"answers={self.answers!r} is none of the tasks {', '.join(self.tasks)}")
        if not ASK_KINDS[self.answers].gives_label:
            raise ValueError(f"answers={self.answers!r} names no diagnosis")
        told = [ask for ask in self.tasks if ASK_KINDS[ask].told_label]
        if told:
            raise ValueError(
                f"task {told[0]!r} tells the diagnosis in its prompt; a student would learn to wait for it"
            )
        return self

    @property
    def needs_rationales(self) -> bool:
        """Whether any of its tasks is to write one."""
        return any(ASK_KINDS[ask].gives_rationale for ask in self.tasks)


ARMS: dict[str, ArmConfig] = {
    "label_only": ArmConfig(answers="direct", tasks={"direct": 1}),
    "rationale_then_label": ArmConfig(answers="diagnose", tasks={"diagnose": 1}),
    "label_then_rationale": ArmConfig(answers="diagnose_label_first", tasks={"diagnose_label_first": 1}),
    "multi_task": ArmConfig(answers="direct", tasks={"direct": 1, "explain": 1}),
}
"""The arms that need no configuration. `multi_task` is step-by-step distillation (Hsieh et al. 2023,
doi:10.18653/v1/2023.findings-acl.507): label and rationale are two tasks of one student."""
ARM_TITLES = {
    "label_only": "label only",
    "rationale_then_label": "rationale then label",
    "label_then_rationale": "label then rationale",
    "multi_task": "label and rationale as two tasks",
}
"""Names in the report."""
