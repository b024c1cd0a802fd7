"""The rules of the house that no other tool checks: folder names, sizes, configs, jobs, and what each room may know."""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from clinical_reasoner.cluster import QUIET
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.imaging import PhantomsConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig, PipelineConfig
from clinical_reasoner.config.reference import ReferenceConfig, VisionReferenceConfig
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.reference.writer import Wording
from clinical_reasoner.serving.fhir_codes import FhirCodes
from clinical_reasoner.task import DiagnosisTask

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "clinical_reasoner"
CODE = sorted(file for room in ("platform", "jobs", "serve", "tests") for file in (ROOT / room).rglob("*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))

RUNTIME_ENV = "configs/runtime-env.yaml"
FRAGMENTS = "configs/defaults/*.yaml"
MODELS: dict[str, type[BaseModel]] = {
    "configs/arms.yaml": PipelineConfig,
    "configs/many_patients.yaml": PipelineConfig,
    "configs/cascade.yaml": PipelineConfig,
    "configs/demo.yaml": PipelineConfig,
    "configs/own_cohort.yaml": PipelineConfig,
    "configs/own_models.yaml": PipelineConfig,
    "configs/tasks/*.yaml": DiagnosisTask,
    "configs/cohort/phantom.yaml": PhantomParameters,
    "configs/cohort/phantoms.yaml": PhantomsConfig,
    "configs/cohort/population_*.yaml": Population,
    "configs/cohort/adni.yaml": CohortRunConfig,
    "configs/cohort/aibl.yaml": CohortRunConfig,
    "configs/cohort/bids.yaml": CohortRunConfig,
    "configs/cohort/freesurfer.yaml": CohortRunConfig,
    "configs/cohort/mapped.yaml": CohortRunConfig,
    "configs/cohort/nacc.yaml": CohortRunConfig,
    "configs/cohort/oasis?.yaml": CohortRunConfig,
    "configs/cohort/synthseg.yaml": CohortRunConfig,
    "configs/serving/fhir_codes.yaml": FhirCodes,
    "configs/reference/teacher.yaml": ReferenceConfig,
    "configs/reference/student.yaml": ReferenceConfig,
    "configs/reference/vlm.yaml": VisionReferenceConfig,
    "configs/reference/alzheimers.yaml": Wording,
}
"""What each YAML is: a new kind of file adds a line here."""

CONFIGS = sorted(
    file for ending in ("yaml", "yml") for file in (ROOT / "configs").rglob(f"*.{ending}") if not file.match(FRAGMENTS)
)


def shown(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_platform_is_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert Path(platform.__file__).parent == Path(sysconfig.get_path("stdlib"))


def test_files_and_jobs_stay_short() -> None:
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in CODE}
    assert {shown(file): count for file, count in lines.items() if count > 400} == {}
    assert {shown(file): lines[file] for file in JOBS if lines[file] > 60} == {}


@pytest.mark.parametrize("file", [file for file in CONFIGS if shown(file) != RUNTIME_ENV], ids=shown)
def test_config_loads(file: Path) -> None:
    models = [model for pattern, model in MODELS.items() if file.match(pattern)]
    assert len(models) == 1, f"{shown(file)}: add to MODELS what it is"
    load_config(models[0], file)


def test_config_of_the_readme_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"(?s)```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        (tmp_path / "mine.yaml").write_text(
            block.replace("[demo.yaml]", f"[{ROOT}/configs/demo.yaml]"), encoding="utf-8"
        )
        load_config(PipelineConfig, tmp_path / "mine.yaml")


def test_every_fragment_is_named_by_a_config() -> None:
    named = {
        file.parent.joinpath(entry).resolve()
        for file in CONFIGS
        for entry in yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    }
    assert set((ROOT / "configs" / "defaults").glob("*")) <= named


def test_submitted_jobs_are_as_quiet_as_local_ones() -> None:
    environment = yaml.safe_load((ROOT / RUNTIME_ENV).read_text(encoding="utf-8"))
    assert environment["env_vars"] == {"PYTHONPATH": "platform", **QUIET}


def test_dry_run_is_quick_and_light() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "jobs/run_pipeline.py", "--config", "configs/demo.yaml", "--dry-run"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "platform"},
        capture_output=True,
        text=True,
        timeout=15,  # takes one second where nothing else runs
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)) == set(PipelineConfig.model_fields)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "clinical_reasoner" in imported
    assert imported.isdisjoint({"ray", "torch", "transformers", "vllm"})


def test_only_readers_of_studies_name_the_disease() -> None:
    naming = [
        f"{shown(file)}:{number}"
        for file in PACKAGE.rglob("*.py")
        if "cohort" not in file.parts
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if "alzheimer" in re.sub(r"configs/[\w/.]+", "", line).lower()
    ]
    assert naming == []


@pytest.mark.parametrize("job", JOBS, ids=shown)
def test_job_says_how_it_is_submitted(job: Path) -> None:
    docstring = ast.get_docstring(ast.parse(job.read_text(encoding="utf-8"))) or ""
    one_line = re.sub(r"\\\n\s*", "", docstring)
    line = re.search(rf"^ *ray job submit --.* python jobs/{job.name}\b.*$", one_line, flags=re.MULTILINE)
    assert line
    # A submitted job's own folder is a temporary copy.
    assert re.search(r" (run\.path|output)=/", line.group()) or job.name == "run_benchmark.py"


def test_file_map_names_every_file() -> None:
    """A line of the README for each file of code, configuration and deployment."""
    listed = set(re.findall(r"(?m)^\| `([^`]+)` \| \S", (ROOT / "README.md").read_text(encoding="utf-8")))
    files = [
        file
        for top in ("platform", "jobs", "serve", "configs", "k8s")
        for file in (ROOT / top).rglob("*")
        if file.is_file() and not {"__pycache__", "models"} & set(file.parts) and ".egg-info" not in str(file)
    ]
    mapped = {shown(file) for file in files if file.name != "__init__.py"}
    assert sorted(mapped - listed) == []
    assert sorted(name for name in listed if not (ROOT / name).exists()) == [], "a line for what is not there"
