"""The endpoint with the students of a finished run.

    python jobs/serve_endpoint.py --config configs/demo.yaml [serving.port=8000 ...] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/serve_endpoint.py --config configs/demo.yaml run.path=/shared/runs/demo serving.host=0.0.0.0

It prints its address and an example call when it is ready, and finishes requests in work at Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from clinical_reasoner.config.loading import load_from_cli, parse_cli
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import reported


def main() -> None:
    config, args = load_from_cli(PipelineConfig, None, __doc__ or ""), parse_cli(None, __doc__ or "")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `serve` is no installed package
    import ray
    from ray import serve

    from clinical_reasoner.cluster import connect
    from serve.listening import address, http_options, start_proxy

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with reported(), ExitStack() as at_end:
        options = http_options(config.serving)
        connect(config.run.logical_cpus)
        at_end.callback(ray.shutdown)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            from serve.app import APPLICATION, build, stop

            application = build({"config": args.config, "overrides": args.overrides}, listens=True)
            start_proxy(config.serving, options)
            at_end.callback(stop, alone="RAY_ADDRESS" not in os.environ)
            serve.run(application, name=APPLICATION, blocking=False)  # returns when the engines are warm
            _announce(address(config.serving))
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopping", flush=True)


def _announce(url: str) -> None:
    body = '{"patient": {"age_years": 74, "mmse": 22, "findings": {"hippocampal_atrophy": "Severe"}}, "model": "auto"}'
    print(f"ready: {url} (documentation: {url}/docs)")
    print(f"curl -s {url}/v1/diagnose -H 'content-type: application/json' -d '{body}'", flush=True)


if __name__ == "__main__":
    main()
