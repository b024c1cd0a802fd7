"""How the rationale stage grows with the cohort: wall time, and the peak memory of its driver and of its workers."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from clinical_reasoner.benchmarks.generation import THREE, StageRun, in_folder, prepare, run_stage
from clinical_reasoner.benchmarks.looking import looking
from clinical_reasoner.benchmarks.processes import in_own_process
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError

TIMES = 4
"""How much larger the second cohort is."""
_LOOK_S = 3.0
_MIB = 2**20


class Memory:
    """Peaks of what this process, and all that it started together, have for themselves (USS), MiB."""

    def __init__(self) -> None:
        self.driver_mib = self.workers_mib = 0.0
        self._psutil: Any = import_module("psutil")  # of Ray, without types

    def look(self) -> None:
        """Take what they have now into account."""
        own = self._psutil.Process()
        self.driver_mib = max(self.driver_mib, self._uss(own))
        self.workers_mib = max(self.workers_mib, sum(map(self._uss, own.children(recursive=True))))

    def _uss(self, process: Any) -> float:
        try:
            return float(process.memory_full_info().uss / _MIB)
        except self._psutil.Error:  # it has just ended
            return 0.0


def benchmark_growth(config: PipelineConfig) -> dict[str, Any]:
    """Three asks about the configured synthetic cohort, and about one that is TIMES as large. The ratio is that of
    time."""
    cohort = config.cohort
    if not isinstance(cohort, SyntheticCohort):
        raise UserError("the benchmark makes its cohorts itself: cohort.kind must be synthetic")
    if os.environ.get("RAY_ADDRESS"):
        raise UserError("the benchmark counts the memory of a Ray of its own: unset RAY_ADDRESS")
    sizes = (cohort.patients, TIMES * cohort.patients)
    with tempfile.TemporaryDirectory() as folder:
        runs = [in_own_process(_watched, config, cohort, size, Path(folder, str(size))) for size in sizes]
    (small, *small_mib), (large, *large_mib) = runs
    driver_mib, workers_mib = zip(small_mib, large_mib, strict=True)
    return {
        "benchmark": "growth",
        "patients": sizes,
        "ratio": round(large.seconds / small.seconds, 2),
        "seconds": [round(one.seconds, 1) for one in (small, large)],
        "tokens_per_s": [round(one.tokens_per_s) for one in (small, large)],
        "driver_mib": [round(one) for one in driver_mib],
        "driver_memory_ratio": round(driver_mib[1] / driver_mib[0], 3),
        "workers_mib": [round(one) for one in workers_mib],
        "workers_memory_ratio": round(workers_mib[1] / workers_mib[0], 3),
    }


def _watched(
    config: PipelineConfig, cohort: SyntheticCohort, patients: int, folder: Path
) -> tuple[StageRun, float, float]:
    """The run, and the peaks of its driver and workers."""
    sized = in_folder(config, str(folder)).model_copy(
        update={"cohort": cohort.model_copy(update={"patients": patients})}
    )
    prepare(sized)
    memory = Memory()
    with looking(memory.look, _LOOK_S):
        run = run_stage(sized, THREE)
    print(f"{patients} patients: {run}, driver {memory.driver_mib:.0f} MiB, workers {memory.workers_mib:.0f} MiB")
    return run, memory.driver_mib, memory.workers_mib
