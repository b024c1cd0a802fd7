"""What the endpoint said, and by which version: the audit record of a request, or of all of a time or an API key.

    python jobs/read_audit.py --config configs/demo.yaml --request ID [--json]
    python jobs/read_audit.py --config configs/demo.yaml [--key NAME] [--since 2026-01-31] [--until 2026-01-31T12:30]
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/read_audit.py --config configs/demo.yaml run.path=/shared/runs/demo --request ID

Times are UTC. A client may give its own request id (a UUID), and two may give the same one: all records of it are
shown, each with its key and time. Exit status 1: no such record. 2: no such folder, or one that cannot be read. With
files on S3, what is not uploaded yet is found only on the machine of the endpoint, in the folder serving.audit.journal.
"""

from __future__ import annotations

import argparse
import sys

from clinical_reasoner.config.loading import load_with_options
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import reported


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--request", metavar="ID", help="request id, as in the answer and in x-request-id")
    parser.add_argument("--key", metavar="NAME", help="name of an API key")
    parser.add_argument("--since", metavar="TIME", help="from this UTC day or time on")
    parser.add_argument("--until", metavar="TIME", help="before this UTC day or time")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each record")


def main() -> None:
    config, options = load_with_options(PipelineConfig, None, __doc__ or "", _options)
    from clinical_reasoner.serving.audit_reading import as_json, as_lines, find_records, make_query

    shown = as_json if options.json else as_lines
    found = 0
    with reported():
        query = make_query(options.request, options.key, options.since, options.until)
        for row in find_records(config.serving.audit, config.run.path, query):
            print(shown(row))
            found += 1
    if not found:
        print(
            "no such record" if options.request is None else f"no record of request {options.request}", file=sys.stderr
        )
        raise SystemExit(1)


if __name__ == "__main__":
    main()
