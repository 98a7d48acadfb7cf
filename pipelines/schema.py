"""The JSON Schema of a request."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from .request import ImageInference


class _WireSchema(GenerateJsonSchema):
    """Pydantic's schema without what only Python has: None for a field that is not given, and titles made of names."""

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one request: fields, types, ranges, allowed values, defaults and descriptions.

    `step` and `unit` are annotations for forms. What fields demand of each other (rules.py) is not part of it.
    """
    schema = ImageInference.model_json_schema(by_alias=True, schema_generator=_WireSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
