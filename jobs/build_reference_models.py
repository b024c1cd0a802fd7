"""Train a reference model from random weights and the project's own text.

    python jobs/build_reference_models.py --config configs/reference/teacher.yaml [key=value ...] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/build_reference_models.py --config configs/reference/teacher.yaml output=/shared/models/teacher

A submitted job works in a temporary copy of the project: give it an absolute `output`.
"""

from __future__ import annotations

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.reference import ReferenceConfig
from clinical_reasoner.errors import reported


def main() -> None:
    config = load_from_cli(ReferenceConfig, None, __doc__ or "")
    from clinical_reasoner.reference.build import build

    with reported():
        folder = build(config)
        print(f"reference {config.role} written to {folder}")


if __name__ == "__main__":
    main()
