"""A benchmark: this project's path against a plain one, in one run. The last line is JSON with the ratio.

    python jobs/run_benchmark.py NAME [--config FILE] [key=value ...] [--dry-run]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/run_benchmark.py generation

`generation`: output tokens per second of the rationale stage, three asks about 1,000 patients, against
`vllm.LLM.generate` on the same prompts; its prefix-cache hit rate; and the time of the three together against apart.
`growth`: time and peak memory of that stage for 1,000 patients and for 4,000.
`ingest`: scans per second of the stage `measures` with 2 workers against a plain loop of nibabel and numpy on the same
phantoms (cohort.patients of them), and how time and memory from a table to findings grow from 10,000 to 100,000 rows.
`training`: examples per second of the training loop against the plain Trainer of Transformers with padding, on
cohort.patients examples of mixed lengths and on as many of one length; held-out losses; and two workers against one.
`serving`: requests per second of the endpoint against vLLM's own server on the same prompts, and time of one client.
`checks`: precision and recall of each check of a rationale on labelled texts; needs no model and no Ray, takes seconds.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import reported

BENCHMARKS = ("checks", "generation", "growth", "ingest", "serving", "training")
DEMO = ["--config", "configs/demo.yaml"]
THOUSAND = [*DEMO, "cohort.patients=1000", "cohort.phantoms=null", "imaging.slices=false"]
DEFAULTS = {"generation": THOUSAND, "growth": THOUSAND}


def main() -> None:
    name, *arguments = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        print(__doc__)
        raise SystemExit(0 if name in ("-h", "--help") else 2)
    given = any(argument.startswith("--config") for argument in arguments)
    arguments = arguments if given else [*DEFAULTS.get(name, DEMO), *arguments]
    config = load_from_cli(PipelineConfig, arguments, __doc__ or "")
    benchmark = getattr(import_module(f"clinical_reasoner.benchmarks.{name}"), f"benchmark_{name}")
    with reported():
        result = benchmark(config)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
