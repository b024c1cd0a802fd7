"""`POST /v1/slices`: a scan in, its slices out, and the grades of a label map; for the page and for looking first."""

import base64
from typing import Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, Field, ValidationError

from clinical_reasoner.serving.schema import FieldError, field_errors, names_in, problem
from clinical_reasoner.serving.uploads import UploadError
from serve.bodies import read_parts
from serve.desk import Desk
from serve.form_docs import form_docs
from serve.problems import Refused, problem_docs
from serve.upload_problems import STATUSES, refused

# No `from __future__ import annotations` here: FastAPI reads the types of the route at run time.


class ShownSlice(BaseModel):
    name: str
    png_base64: str = Field(description="Grey PNG.")


class SlicesResponse(BaseModel):
    slices: tuple[ShownSlice, ...]
    findings: dict[str, str] = Field(description="Finding -> grade, out of the label map.")
    warnings: tuple[str, ...]


def add_slice_routes(api: FastAPI, desk: Desk) -> None:
    @api.post(
        "/v1/slices",
        response_model=SlicesResponse,
        responses=problem_docs(401, 403, 429, *STATUSES),
        openapi_extra=form_docs(required=()),
        dependencies=[Depends(desk.door.enter)],
    )
    async def show_slices(request: Request) -> Any:
        """Slices of a scan and grades of a label map. Age and sex, in the part `request`, are needed for grades."""
        try:
            async with read_parts(request, desk.limits) as parts:
                if not parts.sent.has_files:
                    raise UploadError("scan", "give a scan, a segmentation or slices")
                fields = {} if parts.request_json is None else _patient_fields(desk, parts.request_json)
                upload = await desk.scans.read(parts.sent, fields)
        except UploadError as error:
            raise refused(error) from None
        return SlicesResponse(
            slices=tuple(
                ShownSlice(name=name, png_base64=base64.b64encode(png).decode()) for name, png in upload.slices
            ),
            findings=dict(upload.grades),
            warnings=upload.warnings,
        )


def _patient_fields(desk: Desk, request_json: bytes) -> dict[str, Any]:
    """Columns of the structured patient of a DiagnoseRequest; none of a ready description."""
    try:
        body = desk.body_model.model_validate_json(request_json)
    except ValidationError as error:
        found = field_errors(error.errors(include_url=False), names_in(desk.body_model))
        errors = [FieldError(field=f"request.{one.field}", message=one.message) for one in found]
        raise Refused(problem(422, "the request cannot be used; `errors` names each field", errors)) from None
    return {} if body.patient is None else body.patient.model_dump(exclude={"findings"}, exclude_none=True)
