"""Counts and times of the endpoint for Prometheus. No label holds anything that a client sent.

Ray Serve has its own metrics, of its queues and replicas, on Ray's port; these are of answers. Each copy of the HTTP
side counts for itself, and `replica` tells them apart, as `/metrics` is answered by one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from clinical_reasoner.serving.audit import Form
from clinical_reasoner.serving.schema import AnsweredBy, ModelChoice

Limit = Literal["key", "rate", "places", "body"]
"""What refused a request: no valid key, the rate of a key, too many at a time, or a size."""
TokenKind = Literal["prompt", "completion"]

SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Upper ends of the classes of latency."""
_NAMESPACE = "clinical_reasoner"


class Meters:
    """Everything that `/metrics` shows, in a registry of its own."""

    def __init__(self, replica: str = "0", models: Mapping[AnsweredBy, str] | None = None) -> None:
        """`models`: name of the model of each tier."""
        self.registry = CollectorRegistry()
        self._replica = replica
        self._requests = self._counter("requests", "Requests that ended.", "form", "status")
        self._answers = self._counter(
            "answers", "Answers, by the model asked for and the tier that gave it.", "form", "asked", "tier", "degraded"
        )
        self._referred = self._counter("referred", "Answers that refer to a clinician.", "tier")
        self._unavailable = self._counter("model_unavailable", "Times that a model gave no text.", "tier", "status")
        self._limited = self._counter("limited", "Requests refused by a limit.", "limit")
        self._tokens = self._counter("tokens", "Tokens read and written by a model.", "tier", "kind")
        self._in_work = Gauge(
            "in_work", "Requests in work.", ("replica", "form"), namespace=_NAMESPACE, registry=self.registry
        )
        self._seconds = Histogram(
            "request_seconds",
            "Time to the whole answer, seconds; tier is none where there was none.",
            ("replica", "form", "tier"),
            namespace=_NAMESPACE,
            registry=self.registry,
            buckets=SECONDS,
        )
        named = Gauge("model", "1.", ("replica", "tier", "model"), namespace=_NAMESPACE, registry=self.registry)
        for tier, model in (models or {}).items():
            named.labels(replica, tier, model).set(1)

    @contextmanager
    def working(self, form: Form) -> Iterator[None]:
        """Around the work on one request."""
        gauge = self._in_work.labels(self._replica, form)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def ended(self, form: Form, status: int, seconds: float, tier: AnsweredBy | None = None) -> None:
        """One request, or one patient of a batch, with the HTTP status of its answer or of its place there."""
        self._requests.labels(self._replica, form, str(status)).inc()
        self._seconds.labels(self._replica, form, tier or "none").observe(seconds)

    def answered(
        self, form: Form, asked: ModelChoice, tier: AnsweredBy, *, degraded: bool = False, refer: bool = False
    ) -> None:
        """One answer. Of those with `asked="auto"`, the tier is where the cascade sent them."""
        self._answers.labels(self._replica, form, asked, tier, str(degraded).lower()).inc()
        if refer:
            self._referred.labels(self._replica, tier).inc()

    def unavailable(self, tier: AnsweredBy, status: int) -> None:
        """A model that was asked and gave no text, whether or not another one answered instead."""
        self._unavailable.labels(self._replica, tier, str(status)).inc()

    def limited(self, limit: Limit) -> None:
        self._limited.labels(self._replica, limit).inc()

    def generated(self, tier: AnsweredBy, kind: TokenKind, count: int) -> None:
        self._tokens.labels(self._replica, tier, kind).inc(count)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, ("replica", *labels), namespace=_NAMESPACE, registry=self.registry)
