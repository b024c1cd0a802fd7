"""`POST /v1/slices`: a scan in, its slices out, and the grades of a label map; for the page and for looking first."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, Field

from clinical_reasoner.serving.uploads import Upload, UploadError
from serve.access import Caller
from serve.answering import recorded
from serve.bodies import read_parts
from serve.desk import Desk
from serve.diagnose_routes import patient_fields, validated
from serve.form_docs import form_docs
from serve.guard import guarded_route
from serve.ledger import Visit, request_id_of
from serve.problems import problem_docs
from serve.upload_problems import STATUSES

# No `from __future__ import annotations` here: FastAPI reads the types of the route at run time.


class ShownSlice(BaseModel):
    name: str
    png_base64: str = Field(description="Grey PNG.")


class SlicesResponse(BaseModel):
    slices: tuple[ShownSlice, ...]
    findings: dict[str, str] = Field(description="Finding -> grade, out of the label map.")
    warnings: tuple[str, ...]


def add_slice_routes(api: FastAPI, desk: Desk) -> None:
    router = APIRouter(route_class=guarded_route(desk, "slices"))

    @router.post(
        "/v1/slices",
        response_model=SlicesResponse,
        responses=problem_docs(401, 403, 429, 500, *STATUSES),
        openapi_extra=form_docs(required=()),
    )
    async def show_slices(request: Request, caller: Annotated[Caller, Depends(desk.door.enter)]) -> Any:
        """Slices of a scan and grades of a label map. Age and sex, in the part `request`, are needed for grades."""
        visit = Visit(desk, caller, request_id_of(request), "slices")
        async with recorded(visit):
            shown = _shown(await _read(request, visit))
            await visit.close(200, "answered")
        return shown

    api.include_router(router)


async def _read(request: Request, visit: Visit) -> Upload:
    """Raises Refused and UploadError."""
    desk = visit.desk
    with desk.scans.place():
        async with read_parts(request, desk.limits) as parts:
            if not parts.sent.has_files:
                raise UploadError("scan", "give a scan, a segmentation or slices")
            fields = {} if parts.request_json is None else patient_fields(validated(parts.request_json, desk))
            return await desk.scans.read(parts.sent, fields, visit.left_s)


def _shown(upload: Upload) -> SlicesResponse:
    return SlicesResponse(
        slices=tuple(ShownSlice(name=name, png_base64=base64.b64encode(png).decode()) for name, png in upload.slices),
        findings=dict(upload.grades),
        warnings=upload.warnings,
    )
