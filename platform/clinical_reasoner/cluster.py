"""Ray, started or joined, with telemetry and prompt logging off."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Prompts are patients: Ray's default writes them to the log.
    "RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # A client's request id or method may hold a patient's name, and Ray's default writes both to the log.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "clinical_reasoner.serving.proxy_guard:middlewares",
    # HAProxy, where Ray Serve is told to use it, sends every path and query to a syslog; this port discards them.
    "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:9",
    "TOKENIZERS_PARALLELISM": "false",
}


def connect(logical_cpus: int) -> None:
    """Join the cluster named by RAY_ADDRESS (set inside a submitted job), or start one on this machine.

    `logical_cpus` holds for a started one only. Calling it again is harmless. What workers print stays in Ray's own
    logs: a model's message may quote its prompt.
    """
    os.environ.update(QUIET)
    # A submitted job brings the same variables in its runtime env, and Ray refuses a second naming of any.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    # Workers would give way to every other process, and with them the engine, which does the work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        return
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": dict(QUIET)},
        "logging_level": logging.WARNING,
        "log_to_driver": False,
    }
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **common)
    else:
        ray.init(address="local", num_cpus=logical_cpus, include_dashboard=False, **common)


@contextmanager
def quiet_console() -> Iterator[None]:
    """Ray Data's notes about an execution, which say nothing to a user, go to its log file alone; warnings are still
    printed."""
    handlers = [handler for handler in logging.getLogger("ray.data").handlers if handler.name == "console"]
    levels = [handler.level for handler in handlers]
    try:
        for handler in handlers:
            handler.setLevel(max(handler.level, logging.WARNING))
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def local_or_name(model: str) -> str:
    """A model folder as an absolute path, so that workers with another working folder find it; a hub name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def short_name(model: str) -> str:
    """What answers and operating points call a model: a folder by its last name, a hub name as it is."""
    return Path(model).name if Path(model).is_dir() else model
