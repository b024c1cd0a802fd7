"""How students are distilled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from clinical_reasoner.config.arms import ArmName
from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig

Inputs = Literal["text", "image", "both"]
"""What a student reads: the description, the picture of the MRI, or both."""
Family = Literal["decoder", "encoder_decoder", "encoder"]
Batching = Literal["group_by_length", "packing", "padded"]
Sharding = Literal["ddp", "fsdp2"]
Logger = Literal["tensorboard", "mlflow", "wandb"]
Positive = Annotated[float, Field(gt=0)]


class LoraConfig(StrictConfig):
    """Low-rank adapters (Hu et al. 2022, arXiv:2106.09685), merged into the base at export."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, gt=0)
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an adapter."""
    quantize_base: bool = False
    """The frozen base in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314); needs CUDA and bitsandbytes."""


class ValidationConfig(StrictConfig):
    """The student answers about the validation split while it learns; its best checkpoint by macro-F1 is exported."""

    evaluations: int = Field(default=4, ge=0)
    """Times during a training, evenly spread; 0 exports the last checkpoint unseen."""
    patience: int | None = Field(default=None, ge=1)
    """Evaluations without a better macro-F1 after which training stops; None trains to the end."""
    visits: int = Field(default=200, ge=1)
    """Most visits that are asked about, the first ones of the table."""


RESOURCES = (
    "workers",
    "min_workers",
    "gpus_per_worker",
    "sharding",
    "gradient_checkpointing",
    "max_failures",
    "log_to",
    "log_every",
)
"""Fields of a training that decide how fast it is and what it takes, not what is learnt but for rounding."""


class TrainingConfig(StrictConfig):
    """On which workers a student is trained, and how they go through the examples."""

    workers: int = Field(default=2, ge=1)
    """Data-parallel workers of Ray Train."""
    min_workers: int | None = Field(default=None, ge=1)
    """With fewer than `workers` free, begin with as many as there are, down to this number; None waits for all."""
    gpus_per_worker: float = Field(default=0, ge=0)
    sharding: Sharding = "ddp"
    """`ddp`: the whole model on each worker; `fsdp2`: parameters, gradients and optimizer state split among them."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the arithmetic; weights and optimizer state stay float32. None: bfloat16 on GPUs, float32 on CPUs."""
    gradient_checkpointing: bool = False
    """Activations are computed again in the backward pass: less memory, about a third more time."""
    batching: Batching = "group_by_length"
    """`group_by_length` batches examples of like length; `packing` joins them to rows of `max_length` (for
    FlashAttention on a GPU; text students, tasks of equal weight, no soft labels), and the steps of an epoch, which are
    those of its visits, see each text more often; `padded` takes them as they come."""
    max_failures: int = Field(default=2, ge=0)
    """Restarts of a training whose worker died, from its last checkpoint."""
    log_to: tuple[Logger, ...] = ("tensorboard",)
    """Loss, learning rate and validation: `tensorboard` writes below the run folder of a local path; the others take
    their own environment variables, and must be installed."""
    log_every: int = Field(default=5, ge=1)
    """Optimizer steps between two logged losses, each their mean."""

    @model_validator(mode="after")
    def _elastic_downwards(self) -> TrainingConfig:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is above workers {self.workers}")
        return self


class StudentConfig(StrictConfig):
    base: str
    """Base model: Hugging Face name or local folder. A causal language model, or with `inputs` of `image` or `both` a
    vision-language model; another kind with `family`."""
    family: Family = "decoder"
    """`decoder`: a causal or vision-language model; `encoder_decoder`: T5, BART and their like; `encoder`: BERT and its
    like with a head for the labels, which names the diagnosis and writes no rationale. The last two read text, have no
    chat template, and answer in transformers instead of vLLM: of `engine` count `dtype`, `max_model_len`, the batches,
    `replicas`, `gpus` and `cpus`."""
    inputs: Inputs = "text"
    arms: tuple[ArmName, ...] = Field(default=("label_only", "rationale_then_label"), min_length=1)
    """One student per arm, from the same table and split: `label_only`, `rationale_then_label`, `label_then_rationale`,
    `multi_task`, or names of `more_arms`."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    """One student per arm and seed: of the order of the examples, of dropout and of new weights."""
    epochs: Positive | dict[ArmName, Positive]
    """Passes over the training split, one number for all arms or one for each. An arm whose visits lack usable
    rationales sees the others more often: equal epochs are equal steps."""
    learning_rate: Positive | dict[ArmName, Positive]
    """Peak learning rate of AdamW, one number for all arms or one for each."""
    batch_size: int = Field(default=16, ge=1)
    """Examples per optimizer step, over all workers: with more of them a step is shared and stays the same step."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Most examples in one forward pass of a worker; the rest of its share follows before the step (accumulation)."""
    max_length: int = Field(default=1024, ge=64)
    """Longest example, tokens; a longer one is rejected, never cut."""
    lora: LoraConfig | None = None
    """None trains all weights."""
    validation: ValidationConfig = ValidationConfig()
    training: TrainingConfig = TrainingConfig()
    engine: EngineConfig = EngineConfig()
    """Engine in which the finished student answers."""
    sampling: SamplingConfig = SamplingConfig()

    @field_validator("arms", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[str | int, ...]) -> tuple[str | int, ...]:
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands there twice")
        return values

    @model_validator(mode="after")
    def _every_arm_has_its_schedule(self) -> StudentConfig:
        for name, given in (("epochs", self.epochs), ("learning_rate", self.learning_rate)):
            missing = [arm for arm in self.arms if isinstance(given, dict) and arm not in given]
            if missing:
                raise ValueError(f"{name} has no entry for arm {missing[0]!r}; add student.{name}.{missing[0]}=...")
        return self

    @model_validator(mode="after")
    def _four_bits_stay_whole(self) -> StudentConfig:
        if self.lora is not None and self.lora.quantize_base and self.training.sharding == "fsdp2":
            raise ValueError("lora.quantize_base is not split by training.sharding='fsdp2'; take 'ddp'")
        return self

    @model_validator(mode="after")
    def _examples_fit_engine(self) -> StudentConfig:
        if self.max_length > self.engine.max_model_len:
            raise ValueError(
                f"max_length {self.max_length} is above engine.max_model_len {self.engine.max_model_len}: the student "
                "would learn from longer texts than its engine takes"
            )
        return self

    @model_validator(mode="after")
    def _workers_share_a_step(self) -> StudentConfig:
        training = self.training
        for workers in range(training.min_workers or training.workers, training.workers + 1):
            if self.batch_size % workers:
                raise ValueError(f"batch_size {self.batch_size} cannot be shared evenly among {workers} workers")
        return self

    @model_validator(mode="after")
    def _four_bits_have_a_gpu(self) -> StudentConfig:
        if self.lora is not None and self.lora.quantize_base and not self.training.gpus_per_worker:
            raise ValueError(
                "lora.quantize_base needs CUDA, and training.gpus_per_worker is 0; set that to 1, or quantize_base to "
                "false"
            )
        return self

    @model_validator(mode="after")
    def _can_be_packed(self) -> StudentConfig:
        if self.training.batching == "packing" and self.inputs != "text":
            raise ValueError(f"training.batching='packing' joins texts alone, and inputs={self.inputs!r} has pictures")
        return self

    @model_validator(mode="after")
    def _family_can_be_trained(self) -> StudentConfig:
        if self.family == "decoder":
            return self
        given = {
            "inputs": (self.inputs, "text"),
            "training.batching": (self.training.batching, "group_by_length"),
            "training.sharding": (self.training.sharding, "ddp"),
            "lora.quantize_base": (self.lora is not None and self.lora.quantize_base, False),
        }
        refused = {"image", "both", "packing", "fsdp2", True}
        for name, (value, instead) in given.items():
            if value in refused:
                raise ValueError(f"family={self.family!r} cannot have {name}={value!r}; take {instead!r}")
        return self

    def identity(self, arm: str) -> dict[str, Any]:
        """What the weights of a finished student depend on, besides seed, arm, base and examples."""
        return {
            "epochs": self.epochs_of(arm),
            "learning_rate": self.learning_rate_of(arm),
            "training": self.training.model_dump(mode="json", exclude=set(RESOURCES)),
            # What the prompts are written with, and what decides which checkpoint is the best.
            "chat_template_kwargs": self.engine.chat_template_kwargs,
            "asked": [self.sampling.max_tokens, self.engine.max_model_len] if self.validation.evaluations else None,
            **self.model_dump(
                mode="json", include={"family", "inputs", "batch_size", "max_length", "lora", "validation"}
            ),
        }

    def epochs_of(self, arm: str) -> float:
        return self.epochs[arm] if isinstance(self.epochs, dict) else self.epochs

    def learning_rate_of(self, arm: str) -> float:
        return self.learning_rate[arm] if isinstance(self.learning_rate, dict) else self.learning_rate
