"""The whole path: patients, findings, rationales, students, their answers, predictions and the report.

    python jobs/run_pipeline.py --config configs/demo.yaml [dotted.key=value ...] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/run_pipeline.py --config configs/demo.yaml run.path=/shared/runs/demo

Finished stages are skipped; a killed run continues where it stopped.
"""

from __future__ import annotations

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import reported


def main() -> None:
    config = load_from_cli(PipelineConfig, None, __doc__ or "")
    from clinical_reasoner.pipeline import run_pipeline

    with reported():
        run_pipeline(config)


if __name__ == "__main__":
    main()
