"""Schemathesis over the OpenAPI document of the running endpoint: no 5xx, nothing that the document does not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.endpoint_run import Endpoint
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

CASES = int(os.environ.get("SCHEMATHESIS_CASES", "300"))
"""At least; 2000 for a figure to publish."""
SECONDS_A_CASE = 0.5
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
