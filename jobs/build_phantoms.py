"""Synthetic patients with scans, as a BIDS dataset: for trying the path from MRI to findings without anyone's data.

    python jobs/build_phantoms.py --config configs/cohort/phantoms.yaml [patients=100 output=/data/phantoms] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/build_phantoms.py --config configs/cohort/phantoms.yaml output=/shared/phantoms

They are not real people, and prove plumbing and calibration alone. A submitted job works in a temporary copy of the
project: give it an absolute `output`.
"""

from __future__ import annotations

from pathlib import Path

from clinical_reasoner.config.imaging import PhantomsConfig
from clinical_reasoner.config.loading import load_config, load_from_cli
from clinical_reasoner.errors import reported


def main() -> None:
    config = load_from_cli(PhantomsConfig, None, __doc__ or "")
    from clinical_reasoner.cohort.population import Population
    from clinical_reasoner.imaging.phantom_cohort import write_phantoms
    from clinical_reasoner.imaging.phantom_volumes import PhantomParameters

    with reported():
        population = load_config(Population, config.population)
        parameters = load_config(PhantomParameters, config.parameters)
        folder = Path(config.output).expanduser()
        write_phantoms(population, parameters, config.seed, config.patients, folder)
        print(f"{config.patients} synthetic patients with scans written to {folder.absolute()}")


if __name__ == "__main__":
    main()
