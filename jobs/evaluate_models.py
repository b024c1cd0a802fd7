"""The comparison of a run whose students are finished: answers, predictions and the report.

    python jobs/evaluate_models.py --config configs/demo.yaml [dotted.key=value ...] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/evaluate_models.py --config configs/demo.yaml run.path=/shared/runs/demo

Finished stages are skipped; a killed run continues where it stopped.
"""

from __future__ import annotations

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import reported


def main() -> None:
    config = load_from_cli(PipelineConfig, None, __doc__ or "")
    from clinical_reasoner.pipeline import evaluate_models

    with reported():
        evaluate_models(config)


if __name__ == "__main__":
    main()
