"""A process of the engine ends when the one that started it is killed, and not before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = """
import time
from clinical_reasoner.llm.orphans import end_with_parent
end_with_parent(); end_with_parent()
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_ends_with_its_parent() -> None:
    environment = {**os.environ, "PYTHONPATH": "platform"}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    child = int(parent.stdout.readline())
    time.sleep(4)
    assert alive(child), "while its parent lives"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(child)


def test_vllm_finds_it() -> None:
    assert "clinical_reasoner.llm.orphans:end_with_parent" in {
        point.value for point in entry_points(group="vllm.general_plugins")
    }
