"""How scans are measured and shown, and how phantoms are made."""

from __future__ import annotations

from pydantic import Field

from clinical_reasoner.config.base import StrictConfig


class ImagingConfig(StrictConfig):
    slices: bool = False
    """Make pictures of every scan, PNG, below `slices/` of the run folder: a montage and its slices, and the picture
    that vision-language models read."""
    slice_size: int = Field(default=256, ge=64, le=1024)
    """Side of a slice's picture, pixels; that of the montage is twice as long."""
    cubes: bool = False
    """Write the head of every scan as a cube for 3-D networks, NIfTI, below `cubes/` of the run folder: grey values
    0..255, RAS+, and a header that holds nothing of the scan's own."""
    cube_side: int = Field(default=96, ge=16, le=256)
    """Side of a cube, voxels; it shows 210 mm."""
    faces: bool = True
    """Warn where facial tissue is present in a scan that is opened: to be measured, or to be shown."""
    lookup_table: str | None = None
    """Table of the label maps' numbers and names in the form of FreeSurferColorLUT.txt; None means FreeSurfer's
    numbers, which SynthSeg uses too."""
    segmenter: str | None = Field(default=None, min_length=1)
    """Software and version that made the label maps, for visits whose files do not tell; without one there are no
    w-scores."""
    folder: str | None = None
    """Folder that no file of a scan may lie outside of, links followed; None means the study's folder, or that of the
    cohort's table. Every worker must see it under the same path."""
    workers: int | None = Field(default=None, ge=1)
    """Scans that are measured at a time; None means as many as the cluster, or this machine, has CPUs."""
    rows_per_block: int = Field(default=16, ge=1)
    """Most scans whose results are written, and so safe, together; fewer where there is little work for each worker."""

    @property
    def shows(self) -> bool:
        """Whether every scan is opened to make something of it."""
        return self.slices or self.cubes


class PhantomsConfig(StrictConfig):
    """A dataset of synthetic patients with scans."""

    population: str
    """Population file with the distributions of the patients, e.g. `configs/cohort/population_clinic.yaml`."""
    parameters: str = "configs/cohort/phantom.yaml"
    """File with the distributions of their regional volumes."""
    patients: int = Field(ge=1)
    """Number of synthetic patients."""
    seed: int = Field(ge=0)
    """Cohort seed: the patients are those of a synthetic cohort of the same population and seed."""
    output: str
    """Folder of the dataset; new, empty, or with phantoms of an earlier time, which are replaced."""
