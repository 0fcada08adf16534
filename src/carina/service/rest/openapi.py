"""The OpenAPI document (3.1), made from the table of operations and the structs that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from carina import RESEARCH_ONLY, __version__
from carina.service.problems import PROBLEM, HttpProblem
from carina.service.rest.operation import Operation

REFERENCE = "#/components/schemas/{name}"

Schema = dict[str, Any]
NO_MORE: Mapping[str, Schema] = {}


def openapi(operations: Sequence[Operation[Any]], prefix: str, more: Mapping[str, Schema] = NO_MORE) -> Schema:
    """The document of operations whose paths lie below a prefix, and of ``more`` paths, with what each method does."""
    kinds = list(dict.fromkeys([HttpProblem, *(one.answer for one in operations), *(one.asked for one in operations)]))
    _, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    paths: dict[str, Schema] = {}
    for one in operations:
        paths.setdefault(prefix + one.path, {})[one.method.lower()] = _operation(one, components)
    for path, methods in more.items():
        paths.setdefault(prefix + path, {}).update(methods)
    asked = {one.asked.__name__ for one in operations} - {one.answer.__name__ for one in operations}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Carina node", "version": __version__, "description": RESEARCH_ONLY},
        "paths": paths,
        "components": {
            "schemas": {name: one for name, one in components.items() if name not in asked},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(one: Operation[Any], components: Mapping[str, Schema]) -> Schema:
    schema = components[one.asked.__name__]
    properties: Mapping[str, Schema] = schema.get("properties", {})
    parameters = [_parameter(one, name, value) for name, value in properties.items() if _is_parameter(one, name)]
    found: Schema = {
        "operationId": one.name,
        "tags": [one.tag],
        "summary": one.summary,
        "parameters": parameters,
        "responses": {"200": _done(one.answer), **refusals(one.refusals)},
    }
    if one.has_body:
        body = {name: value for name, value in properties.items() if name not in one.in_path}
        needed = [name for name in schema.get("required", ()) if name in body]
        inner = {"type": "object", "properties": body, "required": needed, "additionalProperties": False}
        found["requestBody"] = {"required": bool(needed), "content": {"application/json": {"schema": inner}}}
    return found


def _is_parameter(one: Operation[Any], name: str) -> bool:
    return name in one.in_path or not one.has_body


def _parameter(one: Operation[Any], name: str, schema: Schema) -> Schema:
    is_in_path = name in one.in_path
    return {"name": name, "in": "path" if is_in_path else "query", "required": is_in_path, "schema": schema}


def _done(answer: type[msgspec.Struct]) -> Schema:
    """An answer of a kind that the document has."""
    return {"description": "Done.", **_content("application/json", answer.__name__)}


def refusals(statuses: Iterable[int]) -> Schema:
    """What is said where an operation is refused: these statuses, and those that all have."""
    problem = _content(PROBLEM, HttpProblem.__name__)
    every = sorted({400, 401, 403, 421, *statuses})
    return {str(status): {"description": HTTPStatus(status).phrase + ".", **problem} for status in every}


def _content(media_type: str, name: str) -> Schema:
    return {"content": {media_type: {"schema": {"$ref": REFERENCE.format(name=name)}}}}
