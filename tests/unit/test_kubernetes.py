"""The Kubernetes manifests agree with the code: pinned Ray, existing jobs, configs that load."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from clinical_reasoner.config.loading import load_config, parse_cli
from clinical_reasoner.config.pipeline import PipelineConfig

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "k8s").rglob("*.yaml"))


def objects(kind: str) -> list[dict[str, Any]]:
    found = [entry for file in MANIFESTS for entry in yaml.safe_load_all(file.read_text()) if entry["kind"] == kind]
    assert found, f"no {kind} in k8s/"
    return found


def test_ray_version_is_the_pinned_one() -> None:
    pin = re.search(r"(?m)^ray==(\S+)", (ROOT / "constraints-cpu.txt").read_text())
    assert pin
    for job in objects("RayJob"):
        assert job["spec"]["rayClusterSpec"]["rayVersion"] == pin.group(1)


def test_entrypoints_load_their_config() -> None:
    for job in objects("RayJob"):
        python, script, *arguments = shlex.split(job["spec"]["entrypoint"])
        assert python == "python"
        assert (ROOT / script).is_file()
        cli = parse_cli(arguments, "")
        load_config(PipelineConfig, ROOT / cli.config, cli.overrides)


def test_kustomization_names_every_file() -> None:
    base = ROOT / "k8s" / "base"
    named = set(yaml.safe_load((base / "kustomization.yaml").read_text())["resources"])
    assert named == {file.name for file in base.glob("*.yaml")} - {"kustomization.yaml"}


def test_head_takes_no_work() -> None:
    for job in objects("RayJob"):
        assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_pods_can_write_to_the_claim_that_is_shipped() -> None:
    claims = {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in objects("PersistentVolumeClaim")}
    for job in objects("RayJob"):
        cluster = job["spec"]["rayClusterSpec"]
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            assert pod["securityContext"]["fsGroup"] == pod["containers"][0]["securityContext"]["runAsUser"]
            for volume in pod["volumes"]:
                assert claims[volume["persistentVolumeClaim"]["claimName"]] == ["ReadWriteMany"]
