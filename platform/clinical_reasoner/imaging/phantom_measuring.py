"""The phantoms of a run: drawn, kept in its folder and measured like any scan, each by one call on a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.imaging.cubes import nifti_bytes
from clinical_reasoner.imaging.measuring import MEASURED, Measured, Measuring, measure_item, measured_row, run_folder
from clinical_reasoner.imaging.phantom_cohort import draw_phantom
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters


@dataclass(frozen=True)
class Bodies:
    """What the bodies of a synthetic cohort are drawn from."""

    population: Population
    parameters: PhantomParameters
    seed: int


def measure_phantoms(items: pa.Table, how: Measuring, bodies: Bodies) -> pa.Table:
    """A row of MEASURED for each of ITEMS, whose paths are below the run folder. Drawing again gives the same files."""
    return pa.Table.from_pylist([_measure_phantom(item, how, bodies) for item in items.to_pylist()], schema=MEASURED)


def _measure_phantom(item: Mapping[str, Any], how: Measuring, bodies: Bodies) -> dict[str, Any]:
    index = int(item["number"]) - 1  # patients are drawn, and numbered, in this order
    try:
        phantom = draw_phantom(bodies.population, bodies.parameters, bodies.seed, index)
    except ValueError as error:
        return measured_row(item, Measured(), f"phantom: {error}")
    with TemporaryDirectory() as scratch:
        local = {}
        for column, voxels in (("image_path", phantom.t1), ("segmentation_path", phantom.labels)):
            file = Path(scratch, Path(item[column]).name)
            content = nifti_bytes(voxels, phantom.affine)
            file.write_bytes(content)
            run_folder(how.run_path).write_bytes(item[column], content)
            local[column] = str(file)
        return measure_item({**item, **local}, replace(how, root=scratch))
