"""The commands of the README's section about the endpoint, word for word."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.endpoint_images import phantom_files
from tests.integration.endpoint_run import Endpoint
from tests.integration.pipeline_run import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ADDRESS = "http://127.0.0.1:8000"
FEWEST = 6
FILE = re.compile(r"-F (scan|segmentation)=@(\S+)")


def commands() -> list[str]:
    """Those with curl, each with the lines that continue it."""
    section = (ROOT / "README.md").read_text().partition("\n## The endpoint\n")[2].partition("\n## ")[0]
    block = section.partition("```bash\n")[2].partition("```")[0]
    whole = re.split(r"\n(?=curl |printf |\.venv/)", block.strip())
    return [command for command in whole if "curl " in command]


def test_the_readme_shows_the_endpoint() -> None:
    assert len(commands()) >= FEWEST and all(ADDRESS in command for command in commands())


@pytest.mark.parametrize("command", commands(), ids=lambda command: re.findall(r"8000([^ ']*)", command)[0])
def test_the_command_is_answered(endpoint: Endpoint, tmp_path: Path, command: str) -> None:
    """With another address and a key; files of scans are those of a phantom, at the place that the command names."""
    assert shutil.which("curl"), "install curl"
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    scan, labels = phantom_files()
    for part, name in FILE.findall(command):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(scan if part == "scan" else labels)
    key = f"Authorization: Bearer {endpoint.tokens['suite']}"
    curl = f"curl() {{ command curl -H '{key}' -o body.txt -w '%{{http_code}}' \"$@\"; }}\n"
    script = f"set -o pipefail\n{curl}{command.replace(ADDRESS, endpoint.url)}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    said = (tmp_path / "body.txt").read_text()
    assert (done.returncode, done.stdout) == (0, "200"), done.stderr + said
    assert said.strip() and "event: problem" not in said
