"""Recipe of a reference model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel, model_validator

from clinical_reasoner.config.base import StrictConfig

PHASE_SEED_STEP = 100
"""Between the text seeds of phases, so that none repeats the patients of another."""


class Schedule(StrictConfig):
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    """Chats or pictures per step."""
    learning_rate: float = Field(gt=0, le=0.1)
    """Peak of AdamW."""
    warmup_steps: int = Field(default=100, ge=1)
    copied_weight: float = Field(default=1.0, ge=1)
    """Loss weight of grades and numbers in answers: what is copied from the description or read from the picture."""


class Phase(Schedule):
    text: Literal["restatements", "asks"] = "asks"
    """Short restatements of little evidence, or the asks of the stages."""
    max_shots: int = Field(default=0, ge=0, le=8)
    """Asks: most exemplars in a prompt."""
    gap_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the patients who lack one finding in six beyond what the population lacks: to read a description with
    gaps, and not to write the usual series."""


class ReferenceConfig(StrictConfig):
    role: Literal["teacher", "student"]
    """A teacher knows the population's diagnoses; a student base knows the language alone."""
    output: str
    """Folder of the finished model."""
    task: str = "configs/tasks/alzheimers.yaml"
    """Task file."""
    population: str = "configs/cohort/population_clinic.yaml"
    """Synthetic population of the training patients."""
    wording: str = "configs/reference/alzheimers.yaml"
    """Wording of the training text."""
    seed: int = Field(default=20261123, ge=0)
    """Of the weights, and of the text and training patients of the first phase; each further phase adds
    PHASE_SEED_STEP (see `text_seeds`). The unseen patients of the model card have seed + 1. Cohorts that are evaluated
    use none of these."""
    vocabulary: int = Field(default=1024, ge=300)
    """Tokens of the tokenizer."""
    tokenizer_chats: int = Field(default=2000, gt=0)
    """Chats on which the tokenizer is trained."""
    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    head_width: int = Field(default=32, gt=0)
    context: int = Field(default=2048, gt=0)
    """Longest input, tokens."""
    option_weight: float = Field(default=8.0, ge=1)
    """Loss weight of the option letter of an answer."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    evaluation_patients: int = Field(default=300, ge=1)
    """Unseen synthetic patients for the model card's figures."""
    max_megabytes: float = Field(gt=0)
    """Largest allowed size of the weights, MB."""

    @property
    def text_seeds(self) -> tuple[int, ...]:
        """Seed of the text and of its patients, for each phase."""
        return tuple(self.seed + PHASE_SEED_STEP * number for number in range(len(self.phases)))

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ReferenceConfig:
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of head_width {self.head_width}")
        return self


class PicturePhase(Schedule):
    learns: Literal["measures", "findings", "asks"]
    """Numbers: the w-scores, by a linear head that is thrown away. Text: the graded findings of the picture, or the
    asks of the stages."""


class VisionTower(StrictConfig):
    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    heads: int = Field(gt=0)
    patch: int = Field(gt=0)
    """Side of a patch, pixels; divides the side of a view."""
    scale_factor: int = Field(gt=0)
    """Patches on a side that become one image token."""

    @model_validator(mode="after")
    def _parts_fit(self) -> VisionTower:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class VisionReferenceConfig(StrictConfig):
    role: Literal["vlm"]
    """A vision-language base for students: reads the pictures of scans, and knows no diagnosis."""
    output: str
    """Folder of the finished model."""
    base: str = "platform/clinical_reasoner/reference/models/student"
    """Text model and tokenizer that it starts from."""
    task: str = "configs/tasks/alzheimers.yaml"
    """Task file."""
    population: str = "configs/cohort/population_clinic.yaml"
    """Synthetic population of the training patients."""
    parameters: str = "configs/cohort/phantom.yaml"
    """Distributions of their regional volumes."""
    wording: str = "configs/reference/alzheimers.yaml"
    """Wording of the training text."""
    seed: int = Field(default=20270501, ge=0)
    """Of the weights, the training phantoms and the first phase; each further phase adds PHASE_SEED_STEP (see
    `text_seeds`). The unseen phantoms of the model card have seed + 1. Cohorts that are evaluated use none of these."""
    phantoms: int = Field(ge=20)
    """Synthetic patients with bodies that are drawn for the training."""
    fewest_controls: int = Field(default=50, ge=10)
    """Fewest controls among them for a norm to be fitted; what has none is not graded."""
    vision: VisionTower
    phases: tuple[PicturePhase, ...] = Field(min_length=1)
    evaluation_phantoms: int = Field(default=300, ge=1)
    """Unseen phantoms whose findings the model reads for the model card."""
    probe_phantoms: int = Field(default=600, ge=20)
    """Unseen phantoms, half to fit and half to test, on which a linear probe tells controls from the disease."""
    max_megabytes: float = Field(gt=0)
    """Largest allowed size of the weights, MB."""

    @property
    def text_seeds(self) -> tuple[int, ...]:
        """Seed of each phase."""
        return tuple(self.seed + PHASE_SEED_STEP * number for number in range(len(self.phases)))


class ReferenceRecipe(RootModel[Annotated[ReferenceConfig | VisionReferenceConfig, Field(discriminator="role")]]):
    """What `configs/reference/` holds of models."""
