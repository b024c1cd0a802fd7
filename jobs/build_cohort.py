"""From study files to patients, measures, graded findings and descriptions, and a table of what is not used and why.

    python jobs/build_cohort.py --config configs/cohort/oasis1.yaml cohort.path=oasis_cross-sectional.csv
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/build_cohort.py --config configs/cohort/adni.yaml cohort.path=/shared/ADNI \\
        cohort.deidentify.key_file=/secret/id.key run.path=/shared/runs/adni

Needs no model. Ids become keyed hashes: the key is in a file outside of the study's folder, or in the environment
variable CLINICAL_REASONER_ID_KEY. Finished stages are skipped; run_pipeline.py goes on in the same run.path.
"""

from __future__ import annotations

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.errors import reported


def main() -> None:
    config = load_from_cli(CohortRunConfig, None, __doc__ or "")
    from clinical_reasoner.pipeline import build_cohort

    with reported():
        build_cohort(config)


if __name__ == "__main__":
    main()
