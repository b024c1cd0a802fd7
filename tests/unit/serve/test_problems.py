from __future__ import annotations

import json

import pytest

from clinical_reasoner.serving.schema import PROBLEM_MEDIA_TYPE, FieldError
from serve.problems import RETRY_AFTER_S, problem_docs, refuse, respond


def test_refusal_carries_its_problem_and_headers() -> None:
    refused = refuse(
        429,
        "too many",
        errors=[FieldError(field="x", message="y")],
        retry_after_s=7,
        headers={"www-authenticate": "Bearer"},
    )
    assert (refused.problem.status, refused.problem.title, refused.problem.detail) == (
        429,
        "Too Many Requests",
        "too many",
    )
    assert refused.problem.errors == (FieldError(field="x", message="y"),)
    assert refused.retry_after_s == 7
    response = respond(refused.problem, refused.headers)
    assert (response.status_code, response.media_type) == (429, PROBLEM_MEDIA_TYPE)
    assert (response.headers["retry-after"], response.headers["www-authenticate"]) == ("7", "Bearer")
    assert json.loads(bytes(response.body))["detail"] == "too many"


@pytest.mark.parametrize(
    ("status", "given", "sent"),
    [(503, None, str(RETRY_AFTER_S)), (503, 9, "9"), (429, None, None), (500, None, None)],
)
def test_every_503_says_when_to_try_again(status: int, given: int | None, sent: str | None) -> None:
    refused = refuse(status, "no", retry_after_s=given)
    assert respond(refused.problem, refused.headers).headers.get("retry-after") == sent


def test_documentation_names_every_status_with_the_media_type_of_problems() -> None:
    docs = problem_docs(401, 429)
    assert set(docs) == {401, 429}
    assert all(set(one["content"]) == {PROBLEM_MEDIA_TYPE} for one in docs.values())
