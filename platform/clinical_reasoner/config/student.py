"""How students are distilled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig

Arm = Literal["label_only", "rationale_then_label"]
Positive = Annotated[float, Field(gt=0)]


class StudentConfig(StrictConfig):
    base: str
    """Base model: Hugging Face name or local folder."""
    arms: tuple[Arm, ...] = Field(default=("label_only", "rationale_then_label"), min_length=1)
    """One student per arm, from the same table and split."""
    epochs: dict[Arm, Positive]
    """Passes over the training split, per arm. An arm whose visits lack usable rationales sees the others more often:
    equal epochs are equal steps."""
    learning_rate: dict[Arm, Positive]
    """Peak learning rate of AdamW, per arm."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per step and worker."""
    max_length: int = Field(default=1024, ge=64)
    """Longest example, tokens; a longer one is rejected, never cut."""
    workers: int = Field(default=2, ge=1)
    """Data-parallel workers of Ray Train."""
    gpus_per_worker: float = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    max_failures: int = Field(default=2, ge=0)
    """Restarts of a training whose worker died, from its last checkpoint."""
    engine: EngineConfig = EngineConfig()
    """Engine in which the finished student answers."""
    sampling: SamplingConfig = SamplingConfig()

    @field_validator("arms")
    @classmethod
    def _each_arm_once(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        twice = [arm for arm in arms if arms.count(arm) > 1]
        if twice:
            raise ValueError(f"arm {twice[0]!r} stands there twice")
        return arms

    @model_validator(mode="after")
    def _every_arm_has_its_schedule(self) -> StudentConfig:
        for name, given in (("epochs", self.epochs), ("learning_rate", self.learning_rate)):
            missing = [arm for arm in self.arms if arm not in given]
            if missing:
                raise ValueError(f"{name} has no entry for arm {missing[0]!r}; add student.{name}.{missing[0]}=...")
        return self
