"""Where a run is kept, and what it is about."""

from __future__ import annotations

from pydantic import Field

from clinical_reasoner.config.base import StrictConfig


class RunConfig(StrictConfig):
    path: str
    """Run folder: a local path or `s3://bucket/prefix`."""
    overwrite: bool = False
    """Make a stage again whose settings differ from those of the run folder, and everything after it."""
    logical_cpus: int = Field(default=8, ge=4)
    """CPUs that a local Ray is told of. More than the machine has, since every pipeline stage is an actor that asks for
    some; without effect on a cluster that already runs."""


class TaskConfig(StrictConfig):
    file: str
    """The disease: a YAML file such as `configs/tasks/alzheimers.yaml`."""
    exemplars: str | None = None
    """Exemplar file (JSON); None takes the one that the task file names."""
