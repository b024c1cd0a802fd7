"""The diagnosis endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from clinical_reasoner.config.arms import ArmName
from clinical_reasoner.config.base import StrictConfig

TeacherAsk = Literal["diagnose", "diagnose_zero_shot", "diagnose_label_first", "direct"]


class ReplicasConfig(StrictConfig):
    """How many engines of one model run side by side: between `least` and `most`, after the requests in work."""

    least: int = Field(default=1, ge=1)
    most: int = Field(default=1, ge=1)
    target_ongoing_requests: float | None = Field(default=None, gt=0)
    """Requests per engine that autoscaling aims at; None: half of the engine's `max_num_seqs`."""
    upscale_delay_s: float = Field(default=30, ge=0)
    downscale_delay_s: float = Field(default=600, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> ReplicasConfig:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is above most={self.most}")
        return self


class TlsConfig(StrictConfig):
    """HTTPS of the proxy. Files in PEM form, on every node that has a proxy."""

    certificate: str
    key: str
    """Without a password."""


class UploadsConfig(StrictConfig):
    """What a scan or picture that is sent may be; checked before memory is taken for it."""

    max_file_mib: int = Field(default=64, ge=1)
    """Largest file as sent, MiB."""
    max_voxels: int = Field(default=40_000_000, ge=1000)
    """Largest scan or label map: the product of its sides. 256 x 256 x 256 has 17 million."""
    max_side: int = Field(default=1024, ge=8)
    """Longest side of a scan, voxels."""
    max_ratio: float = Field(default=200, ge=1)
    """Most bytes that a byte of a gzip file may become, where it becomes more than 128 MiB."""
    max_pixels: int = Field(default=16_000_000, ge=1000)
    """Largest PNG: width times height."""
    max_pictures: int = Field(default=12, ge=1)
    """PNG files in one request."""
    at_a_time: int = Field(default=1, ge=1)
    """Scans that are read at the same time, each in a process of its own."""
    max_waiting: int = Field(default=8, ge=0)
    """Scans that wait for that; one more is answered 503."""
    timeout_s: float = Field(default=60, gt=0)
    """Longest time of reading one, seconds."""
    memory_gib: float = Field(default=3, gt=0)
    """Most memory of such a process, GiB."""


class AuditConfig(StrictConfig):
    """The record of every request: who asked, when, what was said and by which version; no patient text.

    Files are never changed and never removed: how long they are kept is for whoever runs the endpoint to say.
    """

    path: str | None = None
    """Folder, local or `s3://`; None: `audit` below the run folder."""
    journal: str | None = None
    """Local folder of records that are in no file yet; None: `journal` below `path`. Needed where that is on S3: on a
    disk that outlives the process, as what lies there alone is lost with the disk."""
    format: Literal["parquet", "jsonl"] = "parquet"
    roll_rows: int = Field(default=5000, ge=1)
    """Records in one file at most."""
    roll_s: float = Field(default=600, gt=0)
    """Longest time until the records of the journal become a file, seconds. They are safe before that, and shorter
    times make many small files."""


class ServingConfig(StrictConfig):
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    tls: TlsConfig | None = None
    """None serves plain HTTP, for this machine or behind a proxy that has TLS."""
    docs: bool = True
    """Whether `/docs` and `/openapi.json` are there."""
    page: bool = True
    """Whether the page for people is there, at `/`."""
    student_arm: ArmName = "rationale_then_label"
    """Arm of `student` that answers; of several seeds the first one."""
    teacher_ask: TeacherAsk = "diagnose"
    """How the teacher is asked. With `diagnose_label_first` a stream has its probabilities before the rationale."""
    operating_point: str | None = None
    """File with thresholds, temperatures and conformal quantiles; None: that of the run, where it has one."""
    threshold: float = Field(default=0.8, ge=0, le=1)
    """`auto` without an operating point: the student's answer stands when its largest probability reaches this."""
    reload_s: float = Field(default=10, gt=0)
    """How often the operating point and the file of API keys are looked at for a change, seconds."""
    api_keys: str | None = None
    """File of hashed API keys, made by jobs/create_api_key.py; None lets everybody in who reaches the port."""
    fhir_codes: str | None = "configs/serving/fhir_codes.yaml"
    """Which code of an Observation means which field or measure of the task; None leaves `/fhir` out."""
    max_ongoing_requests: int = Field(default=192, ge=1)
    """Patients in the endpoint at a time, worked on or waiting; one more is answered 503."""
    max_queued_requests: int = Field(default=128, ge=1)
    """Patients that wait for one model; to one more that model is not available."""
    request_timeout_s: float = Field(default=60, gt=0)
    """Longest time of one request, seconds; then 504."""
    max_body_mib: float = Field(default=1, gt=0)
    """Largest body of JSON, MiB; scans and batches have their own limits."""
    max_description_chars: int = Field(default=8000, ge=100)
    """Longest ready description, characters."""
    max_batch: int = Field(default=1000, ge=1)
    """Patients in one batch."""
    batch_at_a_time: int = Field(default=16, ge=1)
    """Patients of one batch that are worked on at the same time."""
    student_replicas: ReplicasConfig = ReplicasConfig()
    teacher_replicas: ReplicasConfig = ReplicasConfig()
    ingress_replicas: int = Field(default=1, ge=1)
    """Copies of the HTTP side; rates of API keys hold for each of them."""
    uploads: UploadsConfig = UploadsConfig()
    audit: AuditConfig = AuditConfig()
