"""An API key of the endpoint: adds its hash to the file `serving.api_keys`, and prints the token once.

    python jobs/create_api_key.py --config configs/demo.yaml serving.api_keys=keys.yaml --id hospital-1 \\
        [--models auto,student] [--requests-per-minute 60] [--expires 2027-01-01] [--token-file FILE] [--dry-run]
    python jobs/create_api_key.py --config configs/demo.yaml serving.api_keys=keys.yaml --revoke hospital-1
    ray job submit --working-dir . --runtime-env configs/runtime-env.yaml -- \\
        python jobs/create_api_key.py --config configs/demo.yaml run.path=/shared/runs/demo \\
        serving.api_keys=/shared/keys.yaml --id hospital-1 --token-file /shared/hospital-1.token

What a submitted job prints is kept in Ray's logs, so there the token goes to a file. A running endpoint takes the
change up within `serving.reload_s`.
"""

from __future__ import annotations

import argparse
import os
from datetime import date

from clinical_reasoner.config.loading import load_from_cli
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError, reported


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--id", default="")
    which.add_argument("--revoke", default="")
    parser.add_argument("--models", type=lambda text: text.split(","))
    parser.add_argument("--requests-per-minute", type=int)
    parser.add_argument("--expires", type=date.fromisoformat)
    parser.add_argument("--token-file")
    own, others = parser.parse_known_args()
    config = load_from_cli(PipelineConfig, others, __doc__ or "")
    from clinical_reasoner.serving.new_keys import add_key, revoke_key
    from clinical_reasoner.storage import JOB_VARIABLE

    with reported():
        file = config.serving.api_keys
        if not file or not (own.id or own.revoke):
            raise UserError("give serving.api_keys=FILE, and --id NAME or --revoke NAME")
        if own.revoke:
            revoke_key(file, own.revoke)
            print(f"{own.revoke}: revoked in {file}")
            return
        if JOB_VARIABLE in os.environ and not own.token_file:
            raise UserError("give --token-file FILE: what a submitted job prints is kept in Ray's logs")
        settings = {name: getattr(own, name) for name in ("models", "requests_per_minute", "expires")}
        token = add_key(file, own.id, settings, token_file=own.token_file)
        print(f"{own.id}: added to {file}; the token, shown this once: {own.token_file or token}")


if __name__ == "__main__":
    main()
