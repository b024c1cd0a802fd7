"""How models are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from clinical_reasoner.config.base import StrictConfig

BaselineName = Literal["majority", "logistic_regression", "gradient_boosting", "cnn_3d"]


class CnnConfig(StrictConfig):
    """The 3-D CNN on the cubes of scans: a DenseNet121 whose width and depth can be changed."""

    epochs: int = Field(default=60, ge=1)
    """Most passes over the training split. The epoch with the best macro-F1 on the validation split is kept."""
    patience: int = Field(default=15, ge=1)
    """Epochs without a better one after which training ends."""
    batch_size: int = Field(default=8, ge=2)
    """Cubes per step."""
    learning_rate: float = Field(default=0.0001, gt=0)
    """Of AdamW, constant."""
    init_features: int = Field(default=16, ge=1)
    """Channels of the first convolution; 64 in the paper's network."""
    growth: int = Field(default=16, ge=1)
    """Channels that each layer adds; 32 in the paper's network."""
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(6, 12, 24, 16), min_length=1, max_length=6)
    """Layers of each dense block; the cube is halved between two of them."""
    seed: int = Field(default=0, ge=0)
    """Of weights and of the order of cubes. On a CPU the same seed gives the same network."""

    @property
    def smallest_side(self) -> int:
        """Voxels on a side of the smallest cube of which something is left for the last block."""
        return int(4 * 2 ** (len(self.blocks) - 1))


class OperatingConfig(StrictConfig):
    """How the endpoint's operating point is chosen, on the validation split."""

    target: Literal["cost", "error"] = "cost"
    """`cost`: the fewest requests to the teacher at which macro-F1 is not below the teacher's own. `error`: the lowest
    threshold at which at most `max_error` of the student's standing answers are wrong."""
    max_error: float = Field(default=0.1, gt=0, lt=1)
    """Share of the answers."""
    max_teacher_share: float = Field(default=0.4, gt=0, le=1)
    """`cost`: at most this share of requests goes to the teacher, even where more would be better."""
    coverage: float = Field(default=0.9, gt=0.5, lt=1)
    """Share of patients whose true label is to be in their prediction set."""


class EvaluationConfig(StrictConfig):
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples over subjects, and over training seeds where there are several."""
    seed: int = Field(default=0, ge=0)
    baselines: tuple[BaselineName, ...] = ("majority", "logistic_regression", "gradient_boosting")
    """What teacher and students are compared with. `cnn_3d` sees the scans alone; it takes `imaging.cubes` and is worth
    a GPU."""
    cnn_3d: CnnConfig = CnnConfig()
    examples: int = Field(default=3, ge=0, le=20)
    """Test patients shown in the report, one per label where possible."""
    rejected_examples: int = Field(default=2, ge=0, le=20)
    """Rejected answers of each teacher shown in the report for every reject reason, with the claims that the evidence
    does not support; 0 shows none."""
    ceiling_draws: int = Field(default=5000, ge=100)
    """Synthetic cohort: patients drawn for the population's Bayes accuracy."""
    operating: OperatingConfig = OperatingConfig()

    @field_validator("baselines")
    @classmethod
    def _each_baseline_once(cls, baselines: tuple[BaselineName, ...]) -> tuple[BaselineName, ...]:
        twice = [name for name in baselines if baselines.count(name) > 1]
        if twice:
            raise ValueError(f"baseline {twice[0]!r} stands there twice")
        return baselines
