"""The form with files in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.forms import FILES, TEXTS

_PARTS: dict[str, dict[str, Any]] = {
    "request": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "A DiagnoseRequest as JSON. Grades of a label map need age and sex in its `patient`.",
    },
    "scan": {
        "type": "string",
        "format": "binary",
        "description": "T1-weighted scan: one 3-D NIfTI file (.nii or .nii.gz).",
    },
    "segmentation": {
        "type": "string",
        "format": "binary",
        "description": "Label map with FreeSurfer's ids, NIfTI, of any grid.",
    },
    "slices": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "PNG pictures.",
    },
    "segmenter": {
        "type": "string",
        "description": "Software and version that made the label map, as the norms of this endpoint call it.",
    },
    "field_strength_t": {"type": "number", "description": "Field strength of the scanner, tesla."},
}


def form_schema(required: Sequence[str] = ("request",)) -> dict[str, Any]:
    """Schema of the form's parts."""
    return {
        "type": "object",
        "properties": {name: _PARTS[name] for name in (*TEXTS, *FILES)},
        "required": list(required),
        "additionalProperties": False,
    }


def form_docs(required: Sequence[str] = ("request",)) -> dict[str, Any]:
    """`openapi_extra` of a route that takes nothing but the form."""
    content = {"multipart/form-data": {"schema": form_schema(required)}}
    return {"requestBody": {"required": True, "content": content}}
