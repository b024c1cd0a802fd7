"""Train a reference model on the project's own text, or on its own text and pictures of phantoms.

    python jobs/build_reference_models.py --config configs/reference/teacher.yaml [key=value ...] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/build_reference_models.py --config configs/reference/teacher.yaml output=/shared/models/teacher

A submitted job works in a temporary copy of the project: give it an absolute `output`.
"""

from __future__ import annotations

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.reference import ReferenceRecipe
from clinical_reasoner.errors import reported


def main() -> None:
    config = load_from_cli(ReferenceRecipe, None, __doc__ or "").root
    from clinical_reasoner.reference.build import build
    from clinical_reasoner.reference.vlm_build import build_vlm

    with reported():
        folder = build_vlm(config) if config.role == "vlm" else build(config)
        print(f"reference {config.role} written to {folder}")


if __name__ == "__main__":
    main()
