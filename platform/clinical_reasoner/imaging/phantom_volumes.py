"""Regional volumes of synthetic patients: published effect sizes on top of age, head size and noise, read from YAML.

The effect sizes are put in by this project (with their sources, configs/cohort/phantom.yaml): what comes out of them
proves plumbing and calibration, never clinical validity.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.config.base import StrictConfig

Domain = Literal["medial_temporal", "cortex", "ventricles", "vascular"]
MOST_SD, MOST_SD_ICV = 3.0, 2.5
"""Noise beyond it is cut off: an ellipsoid head has no room for everything."""


class IcvDistribution(StrictConfig):
    median_mm3: float = Field(gt=0)
    """Intracranial volume, mm3."""
    cv: float = Field(gt=0, lt=0.3)
    """SD of its logarithm."""


class RegionDistribution(StrictConfig):
    median_mm3: float = Field(gt=0)
    """Volume of both hemispheres at the reference age and ICV and severity 0, mm3."""
    cv: float = Field(gt=0, lt=2)
    """SD of the logarithm in controls of one age and ICV."""
    effect: float = Field(ge=-4, le=4)
    """Mean difference between severity 1 and 0 of the typical subtype, in SD of controls; negative = smaller."""
    slope_per_year: float = Field(ge=-0.2, le=0.2)
    """Change of the logarithm with each year of age."""
    domain: Domain
    """Regions of one domain share a factor."""
    most_of_icv: float = Field(default=1.0, gt=0, le=1)
    """No volume is larger than this part of the ICV."""


class Subtype(StrictConfig):
    share: float = Field(gt=0, le=1)
    """Part of the people."""
    factors: dict[Domain, float]
    """What the effects of a domain are multiplied by."""


class PhantomParameters(StrictConfig):
    """How the volumes of synthetic patients are distributed."""

    icv: dict[str, IcvDistribution]
    """By sex: female and male."""
    reference_icv_mm3: float = Field(gt=0)
    reference_age_years: float = Field(gt=0, le=120)
    icv_exponent: float = Field(ge=0, le=1)
    """A volume grows with this power of the ICV."""
    shared_variance: float = Field(ge=0, lt=1)
    """Part of a region's noise that it shares with the other regions of its domain."""
    control_severity_sd: float = Field(ge=0, lt=1)
    """SD of the latent severity in controls, part of their cv."""
    step_mm3: float = Field(gt=0)
    """Volumes are whole multiples of it, mm3: with the volume of one voxel, a label map holds them without rounding."""
    subtypes: dict[str, Subtype]
    regions: dict[str, RegionDistribution]

    @model_validator(mode="after")
    def _consistent(self) -> PhantomParameters:
        wanted = set(REGIONS) - {"icv"}
        if set(self.regions) != wanted:
            raise ValueError(f"regions must be {sorted(wanted)}; they differ by {sorted(set(self.regions) ^ wanted)}")
        if set(self.icv) != {"female", "male"}:
            raise ValueError("icv must have female and male")
        if abs(sum(subtype.share for subtype in self.subtypes.values()) - 1) > 1e-6:
            raise ValueError("subtypes.*.share do not add up to 1")
        if max(abs(region.effect) for region in self.regions.values()) * self.control_severity_sd >= 1:
            raise ValueError("the largest effect times control_severity_sd must stay below 1, the SD of controls")
        return self


def draw_volumes(
    parameters: PhantomParameters, severity: float, age_years: float, sex: str, rng: np.random.Generator
) -> dict[str, float]:
    """Volumes (mm3) of one person, by the names of REGIONS; severity 0 = controls, 1 = the reference disease.

    log V = log median + exponent log(ICV / reference) + slope (age - reference) + cv (noise + effect severity).
    """
    if sex not in parameters.icv:
        raise ValueError("sex must be female or male")
    spec = parameters.icv[sex]
    icv = spec.median_mm3 * exp(spec.cv * float(np.clip(rng.normal(), -MOST_SD_ICV, MOST_SD_ICV)))
    subtypes = list(parameters.subtypes.values())
    subtype = subtypes[rng.choice(len(subtypes), p=[one.share for one in subtypes])]
    domains = dict.fromkeys(region.domain for region in parameters.regions.values())
    shared = {domain: rng.normal() for domain in domains}
    rho = parameters.shared_variance
    volumes = {}
    for name in REGIONS:
        if name == "icv":
            continue
        region = parameters.regions[name]
        own = sqrt(rho) * shared[region.domain] + sqrt(1 - rho) * rng.normal()
        deviation = residual_sd(parameters, name) * float(np.clip(own, -MOST_SD, MOST_SD))
        deviation += region.effect * subtype.factors.get(region.domain, 1.0) * severity
        logarithm = expected_log(parameters, name, icv, age_years) + region.cv * deviation
        volumes[name] = min(exp(logarithm), region.most_of_icv * icv)
    step = parameters.step_mm3
    return {name: max(2, round(volume / step)) * step for name, volume in (volumes | {"icv": icv}).items()}


def expected_log(parameters: PhantomParameters, name: str, icv_mm3: float, age_years: float) -> float:
    """Mean of log volume (mm3) at severity 0."""
    region = parameters.regions[name]
    return (
        log(region.median_mm3)
        + parameters.icv_exponent * log(icv_mm3 / parameters.reference_icv_mm3)
        + region.slope_per_year * (age_years - parameters.reference_age_years)
    )


def residual_sd(parameters: PhantomParameters, name: str) -> float:
    """SD of a region's noise in units of its cv, so that controls, whose severity varies, have SD 1."""
    return sqrt(1 - (parameters.regions[name].effect * parameters.control_severity_sd) ** 2)
