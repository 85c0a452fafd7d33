"""The OpenAPI 3.1 document, made of the routes and of the structs that decode their requests.

Source: https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

import functools
from http import HTTPStatus
from typing import Any

import msgspec

from pman import __version__
from pman.rest import examples, links, problems
from pman.rest.reading import Spelling, spellings
from pman.rest.route import JSON, Answer, Route
from pman.rest.routes import ROUTES

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"

#: Errors that any operation may be answered with: status code -> when.
_ERRORS = {
    400: "A parameter, a header or the body is not as it should be; the problem names it.",
    401: "No valid token.",
    403: "The token does not give that right, or this pman does not allow it.",
    406: "Nothing that `Accept` names can be answered.",
    408: "The request was not complete in time. In the form of `POST /api/v1/cmd`.",
    413: "The body is too large.",
    431: "The head is too large.",
    500: "A fault of pman; its log says more.",
    503: "It can't be done now; the problem says what to do.",
}

_JOB_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "`id` of a job, or a `jid`, which stands for the newest job that has it",
    "schema": {"type": "string", "minLength": 1},
}

_IF_NONE_MATCH = "the `ETag` of what the client has: answered with 304 if that is still the same"

_DESCRIPTION = """\
Jobs on the host, on Docker Swarm and on OpenShift or Kubernetes. Each operation on them is an
action of the JSON form of `POST /api/v1/cmd`. GET may be HEAD everywhere; errors are problem
documents of RFC 9457."""


@functools.cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(build())


def build() -> dict[str, Any]:
    """Return the document."""
    asked, schemas = _schemas()
    paths: dict[str, Any] = {}
    for route in ROUTES:
        operation = _operation(route, asked[route.query_kind.__name__])
        paths.setdefault(route.path or "/", {})[route.method.lower()] = operation
        if route.reads == "body":
            schemas[route.body_name] = _body_schema(route, asked)
    for example in examples.ANSWERS:
        schemas[type(example).__name__]["examples"] = [msgspec.to_builtins(example)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pman",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": links.ROOT}],
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "needed where pman was started with --enableTokenAuth",
                }
            },
        },
    }


def _schemas() -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Return the schemas of what is asked for, and those of all that they and answers refer to."""
    asked: dict[Any, None] = {}
    answered: dict[Any, None] = {problems.Problem: None}
    for route in ROUTES:
        asked.update(dict.fromkeys((route.query_kind, route.takes, route.own_body)))
        for answer in route.answers.values():
            for kind in answer.content.values():
                answered.update((each, None) for each in _alternatives(kind) if _is_struct(each))
    _, schemas = msgspec.json.schema_components({**asked, **answered}, ref_template=_REFERENCE)
    return {kind.__name__: schemas.pop(kind.__name__) for kind in asked}, schemas


def _body_schema(route: Route, asked: dict[str, Schema]) -> Schema:
    """Return the schema of a body: what the action takes, and what else REST knows."""
    schema = asked[route.takes.__name__]
    properties = {**schema["properties"], **asked[route.own_body.__name__]["properties"]}
    for name, default in route.optional.items():
        text = f"{properties[name]['description']} Default: {default}."
        properties[name] = {**properties[name], "description": text}
    return {
        "title": route.body_name,
        "type": "object",
        "properties": {name: properties[name] for name in route.body_names},
        "required": [name for name in schema["required"] if name not in route.optional],
        "additionalProperties": False,
    }


def _operation(route: Route, query: Schema) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    if route.description:
        operation["description"] = route.description
    operation["parameters"] = _parameters(route, query)
    if route.reads == "body":
        content: dict[str, Any] = {"schema": {"$ref": _REFERENCE.format(name=route.body_name)}}
        if route.examples:
            content["examples"] = {name: {"value": body} for name, body in route.examples.items()}
        operation["requestBody"] = {"required": route.needs_body, "content": {JSON: content}}
    operation["responses"] = _responses(route)
    return operation


def _parameters(route: Route, query: Schema) -> list[Schema]:
    found: list[Schema] = [_JOB_ID] if "{id}" in route.path else []
    for name, spelling in spellings(route.query_kind).items():
        if name not in route.hidden:
            found.append(_query_parameter(name, query["properties"][name], spelling))
    headers = dict(route.headers)
    if route.method == "GET":
        headers["If-None-Match"] = _IF_NONE_MATCH
    found += [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in headers.items()
    ]
    return found


def _query_parameter(name: str, schema: Schema, spelling: Spelling) -> Schema:
    """Return a parameter; what is null in JSON is left out of a query."""
    schema = dict(schema)
    parameter = {"name": name, "in": "query", "description": schema.pop("description")}
    if schema.get("default", ...) is None:
        del schema["default"]
    forms = [form for form in schema.pop("anyOf", ()) if form != {"type": "null"}]
    if spelling == "pairs":
        schema = {"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}}
    elif spelling == "repeated" and forms:
        schema = next(form for form in forms if form.get("type") == "array")
    elif len(forms) == 1:
        schema |= forms[0]
    elif forms:
        schema["anyOf"] = forms
    return {**parameter, "schema": schema}


def _responses(route: Route) -> dict[str, Any]:
    answers = dict(route.answers)
    problem = {problems.MEDIA_TYPE: problems.Problem}
    if route.method == "GET":
        answers[304] = Answer(means="It is what the client has.")
    if "{id}" in route.path:
        answers[404] = Answer(means="There is no such job.", content=problem)
    for code, means in _ERRORS.items():
        # Of what is not whole nobody knows that it is for REST.
        content = {} if code == HTTPStatus.REQUEST_TIMEOUT else problem
        answers.setdefault(code, Answer(means=means, content=content))
    return {str(code): _response(route, code, answers[code]) for code in sorted(answers)}


def _response(route: Route, code: int, answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.means}
    headers = dict(answer.headers)
    if code == HTTPStatus.OK and route.method == "GET":
        headers["ETag"] = "names this very answer; not with a stream"
    if code == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "`Bearer`"
    if headers:
        shown["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    if answer.content:
        shown["content"] = {
            media: {"schema": _schema(kind)} for media, kind in answer.content.items()
        }
    return shown


def _schema(kind: Any) -> Schema:
    """Return the schema of a type, or of a tuple of types, one of which it is."""
    several = [
        {"$ref": _REFERENCE.format(name=each.__name__)}
        if _is_struct(each)
        else msgspec.json.schema(each)
        for each in _alternatives(kind)
    ]
    return several[0] if len(several) == 1 else {"anyOf": several}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
