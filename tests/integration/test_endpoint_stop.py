"""The last of the endpoint's tests: a clean stop, and then no file that it left holds a patient."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.endpoint_run import CANARY, CANARY_AGE, Endpoint, stop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def written(endpoint: Endpoint) -> dict[str, bytes]:
    """Everything that the endpoint wrote, by its place; Parquet as text."""
    found = {}
    for folder in (endpoint.ray, endpoint.folder):
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink() and "model" not in file.parts:
                found[str(file)] = file.read_bytes()
                if file.suffix == ".parquet":
                    found[f"{file} as text"] = str(pq.read_table(file).to_pylist()).encode()
    return found


def test_the_stop_is_clean_and_no_patient_is_in_anything_that_was_written(endpoint: Endpoint) -> None:
    """Free text, age, request id, key, path, query, file names and JSON keys of the tests before, whatever became of
    the requests."""
    stop(endpoint.process)
    assert endpoint.process.returncode == 0, endpoint.output.read_text()[-4000:]
    files = written(endpoint)
    names = [Path(place).name for place in files]
    assert any("replica_diagnosis" in name for name in names), "the access log of the ingress is not where it was"
    assert any(" as text" in name for name in names), "there is no audit record"
    secrets = [token.encode() for token in endpoint.tokens.values()]
    for secret in (CANARY.encode(), CANARY.lower().encode(), str(CANARY_AGE).encode(), *secrets):
        assert [place for place, content in files.items() if secret in content] == []
        assert [text for text in endpoint.client_texts if secret.decode() in text] == []
        assert [place for place in files if secret.decode() in place] == []
