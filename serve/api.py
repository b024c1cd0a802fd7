"""The HTTP side as a whole: all routes over one desk, and every failure as problem details without patient text."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from clinical_reasoner import __version__
from clinical_reasoner.serving.schema import (
    PROBLEM_MEDIA_TYPE,
    RESEARCH_USE_ONLY,
    Problem,
    problem,
)
from serve.batch_routes import add_batch_routes
from serve.desk import Desk
from serve.diagnose_routes import add_diagnose_routes
from serve.docs_routes import add_docs_routes
from serve.fhir_routes import add_fhir_routes
from serve.guard import guarded_route
from serve.health_routes import add_health_routes
from serve.metrics_routes import add_metrics_routes
from serve.openai_routes import add_openai_routes
from serve.page_routes import add_page_routes
from serve.problems import respond
from serve.slice_routes import add_slice_routes

SCHEMAS = "#/components/schemas/{model}"


class _Api(FastAPI):
    desk: Desk

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            # Bodies are read by the routes themselves, within limits, so that FastAPI does not know their schemas.
            models: Any = [(self.desk.body_model, "validation"), (Problem, "serialization")]
            _, extra = models_json_schema(models, ref_template=SCHEMAS)
            schema["components"].setdefault("schemas", {}).update(extra["$defs"])
            for operation in (one for path in schema["paths"].values() for one in path.values()):
                for response in operation["responses"].values():
                    if PROBLEM_MEDIA_TYPE in response.get("content", {}):  # FastAPI adds that of good responses
                        response["content"].pop("application/json", None)
            self.openapi_schema = schema
        return self.openapi_schema


def build_api(desk: Desk) -> FastAPI:
    """The FastAPI app, with the request of the panel's task."""
    shown = desk.limits.docs
    api = _Api(
        title="clinical-reasoner",
        version=__version__,
        summary=f"Reasoned answers: {desk.panel.task.title}.",
        description=RESEARCH_USE_ONLY,
        openapi_url="/openapi.json" if shown else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to http:// behind a proxy with TLS, with the patient in the body
    )
    api.desk = desk
    api.add_exception_handler(HTTPException, _not_offered)
    api.router.route_class = guarded_route(desk)
    for add in (
        add_diagnose_routes,
        add_batch_routes,
        add_slice_routes,
        add_openai_routes,
        add_health_routes,
        add_metrics_routes,
    ):
        add(api, desk)
    if desk.codes is not None:
        add_fhir_routes(api, desk, desk.codes)
    if shown:
        add_docs_routes(api)
    if desk.limits.page:
        add_page_routes(api, desk)
    return api


async def _not_offered(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return respond(problem(error.status_code, "see /docs for what this endpoint offers"), error.headers)
