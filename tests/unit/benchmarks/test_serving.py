"""What the endpoint of the serving benchmark is started with."""

from __future__ import annotations

from pathlib import Path

from clinical_reasoner.benchmarks.serving import served_config
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig

DEMO = Path(__file__).parents[3] / "configs/demo.yaml"


def test_clients_of_the_benchmark_need_no_key_and_no_tls() -> None:
    given = ["serving.api_keys=keys.json", "serving.tls={certificate: c.pem, key: k.pem}", "serving.threshold=0.7"]
    served = served_config(load_config(PipelineConfig, DEMO, given), "runs/other")
    assert (served.serving.api_keys, served.serving.tls, served.run.path) == (None, None, "runs/other")
    assert served.serving.threshold == 0.7, "everything else stays"
