"""The OpenAPI document of the endpoint. What a request is, it takes from the vocabulary (pipelines/request.py)."""

from __future__ import annotations

import json
from typing import Any

from ..pipelines.schema import json_schema
from . import answers
from .models import CATEGORIES

Schema = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_TASKS = {
    "imageInference": "ImageInference",
    "imageUpload": "ImageUpload",
    "getResponse": "GetResponse",
    "modelSearch": "ModelSearch",
    "ping": "Ping",
    "authentication": "Authentication",
}
_ITEMS = {
    "imageInference": "ImageResult",
    "imageUpload": "UploadedImage",
    "modelSearch": "FoundModels",
    "ping": "Pong",
    "authentication": "Session",
}
_EXAMPLE = {
    "taskType": "imageInference",
    "taskUUID": "0b6ad3d3-9ee2-4bf6-9c5b-5b3a0f6c2a11",
    "model": "sd3-nano",
    "positivePrompt": "a red circle on the left, blue background",
    "width": 128,
    "height": 128,
    "steps": 20,
    "CFGScale": 5,
}
_TEXT: Schema = {"type": "string"}
_UUID: Schema = {"type": "string", "format": "uuid"}
_DRY_RUN = "1 checks the tasks, and tells their cost where they ask for it, but runs nothing."


def document(server_url: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the endpoint whose ComfyUI answers at `server_url`, as "http://127.0.0.1:8188"."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SD3 Local",
            "version": "1",
            "description": "The hosted API's requests, run as graphs in this ComfyUI's own queue. The same messages go "
            "over a WebSocket on the path of the POST, where each result comes as soon as it is finished.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "servers": [{"url": server_url}],
        "security": [{"apiKey": []}, {}],
        "paths": {"/sd3local/v1": {"post": _tasks()}, f"{answers.IMAGES}{{name}}": {"get": _image()}},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of this endpoint, which may come in an authentication task as well. A "
                    "ComfyUI that only this machine can reach and that has no key stored takes any or none.",
                }
            },
        },
    }


def _tasks() -> Schema:
    failures = {
        "400": "No task was taken: each error tells what is wrong, and with which parameter.",
        "401": "There is no API key, or not the right one.",
        "403": "The request comes from a page of another web site.",
        "404": "There is no task of this taskUUID to tell of.",
        "413": "The request is too large.",
        "429": "Too many tasks are waiting.",
        "500": "The server failed; its log says more.",
    }
    return {
        "operationId": "runTasks",
        "summary": "Run tasks.",
        "description": "An array of tasks, or one task. Of several tasks those that are right are run, and the others "
        "are told as errors.",
        "parameters": [
            {
                "name": "X-Runware-Dry-Run",
                "in": "header",
                "description": _DRY_RUN,
                "schema": {"type": "string", "enum": ["0", "1"]},
            },
            {
                "name": "dryRun",
                "in": "query",
                "description": _DRY_RUN,
                "schema": {"type": "string", "enum": ["0", "1"]},
            },
        ],
        "requestBody": {"required": True, "content": _json("Tasks", example=[_EXAMPLE])},
        "responses": {
            "200": {"description": "What came of the tasks, matched by taskUUID.", "content": _json("Response")},
            **{status: {"description": because, "content": _json("Failure")} for status, because in failures.items()},
        },
    }


def _image() -> Schema:
    endings = "|".join(answers.MEDIA_TYPES)
    return {
        "operationId": "getImage",
        "summary": "A stored picture, by the address that imageURL tells.",
        "security": [{}],
        "parameters": [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "The picture's UUID and its format.",
                "schema": {
                    "type": "string",
                    "pattern": rf"^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}\.({endings})$",
                },
            }
        ],
        "responses": {
            "200": {"description": "The picture.", "content": {media: {} for media in answers.MEDIA_TYPES.values()}},
            "404": {"description": "There is no such picture, or its ttl is over.", "content": {"text/plain": {}}},
        },
    }


def _schemas() -> dict[str, Schema]:
    request = _moved(json_schema())
    del request["$schema"]
    return {
        "Tasks": {"anyOf": [{"type": "array", "minItems": 1, "items": _ref("Task")}, _ref("Task")]},
        "Task": _one_of(_TASKS),
        "ImageInference": {name: part for name, part in request.items() if name != "$defs"},
        **request["$defs"],
        "ImageUpload": _object(
            "Store a picture, whose UUID then stands for it in other tasks.",
            required=("taskType", "taskUUID", "image"),
            taskType={"const": "imageUpload"},
            taskUUID={**_UUID, "description": "Identifier of the task, a fresh UUID v4."},
            image={"type": "string", "minLength": 1, "description": "The picture: a URL, data URI or base64."},
        ),
        "GetResponse": _object(
            "Ask what came of a task so far.",
            required=("taskType", "taskUUID"),
            taskType={"const": "getResponse"},
            taskUUID={**_UUID, "description": "Identifier of the task asked for."},
        ),
        "ModelSearch": _object(
            "Ask which models there are.",
            required=("taskType", "taskUUID"),
            taskType={"const": "modelSearch"},
            taskUUID={**_UUID, "description": "Identifier of the task, a fresh UUID v4."},
            search={"type": "string", "description": "A part of the identifier or of the file's name."},
            category={"enum": list(CATEGORIES.values())},
            limit={"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            offset={"type": "integer", "minimum": 0, "default": 0},
        ),
        "Ping": _object(
            "Ask whether the endpoint is there.",
            required=("taskType",),
            taskType={"const": "ping"},
            taskUUID=_TEXT,
            ping={"type": "boolean"},
        ),
        "Authentication": _object(
            "Tell the API key; the first task of a request without an Authorization header.",
            required=("taskType", "apiKey"),
            taskType={"const": "authentication"},
            taskUUID=_UUID,
            apiKey=_TEXT,
            connectionSessionUUID={"type": "string", "description": "The WebSocket session to go on with."},
        ),
        "Response": {**_answer(), "required": ["data"]},
        "Failure": {**_answer(), "required": ["errors"]},
        "Item": _one_of(_ITEMS),
        "ImageResult": _object(
            "One finished picture; without one, the word that its task was taken, checked, or is still running.",
            required=("taskType", "taskUUID"),
            taskType={"const": "imageInference"},
            taskUUID=_UUID,
            imageUUID={**_UUID, "description": "What other tasks may call the picture."},
            imageURL={"type": "string", "format": "uri"},
            imageBase64Data={"type": "string", "contentEncoding": "base64"},
            imageDataURI={"type": "string", "pattern": "^data:image/"},
            seed={"type": "integer", "minimum": 0, "description": "The seed that makes this very picture."},
            NSFWContent={"type": "boolean", "description": "Whether the safety check found the picture unsafe."},
            cost={"type": "number", "minimum": 0, "description": "Price of a GPU-hour times the hours it took."},
            status={"enum": ["processing", "success"], "description": "Told to getResponse."},
            progress={"type": "integer", "minimum": 0, "maximum": 100, "description": "Percent of the task done."},
        ),
        "UploadedImage": _object(
            "A picture that was stored; in a dry run, one that would be.",
            required=("taskType", "taskUUID"),
            taskType={"const": "imageUpload"},
            taskUUID=_UUID,
            imageUUID=_UUID,
            imageURL={"type": "string", "format": "uri"},
            cost={"type": "number", "minimum": 0},
            status={"const": "success", "description": "Told to getResponse."},
        ),
        "FoundModels": _object(
            "Models that there are.",
            required=("taskType", "taskUUID", "results", "totalResults"),
            taskType={"const": "modelSearch"},
            taskUUID=_UUID,
            results={"type": "array", "items": _ref("FoundModel")},
            totalResults={"type": "integer", "minimum": 0},
        ),
        "FoundModel": _object(
            "A model.",
            required=("air", "name", "category", "architecture", "tags", "private"),
            air={"type": "string", "description": "What a request calls it."},
            name={"type": "string", "description": "Its file."},
            category={"enum": list(CATEGORIES.values())},
            architecture=_TEXT,
            tags={"type": "array", "items": _TEXT},
            private={"type": "boolean"},
        ),
        "Pong": _object(
            "The endpoint is there.",
            required=("taskType", "pong"),
            taskType={"const": "ping"},
            taskUUID=_TEXT,
            pong={"const": True},
        ),
        "Session": _object(
            "The key was taken.",
            required=("taskType",),
            taskType={"const": "authentication"},
            connectionSessionUUID=_TEXT,
        ),
        "Error": _object(
            "One thing that is wrong, and what would be right.",
            required=("code", "message", "parameter"),
            code={"type": "string", "pattern": "^[a-z][A-Za-z0-9]*$"},
            message={"type": "string", "minLength": 1},
            parameter={"type": "string", "description": "Where it is in the task, such as controlNet[1].endStep."},
            taskType=_TEXT,
            taskUUID=_TEXT,
            status={"const": "error", "description": "Told to getResponse."},
            type={"type": "string", "description": "JSON type that the parameter takes."},
            min={"type": "number"},
            max={"type": "number"},
            multiplier={"type": "number"},
            allowedValues={"type": "array", "items": _TEXT},
            minLength={"type": "integer"},
            maxLength={"type": "integer"},
            minItems={"type": "integer"},
            maxItems={"type": "integer"},
        ),
    }


def _answer() -> Schema:
    return _object(
        "Results and errors; a part that is empty is left out.",
        data={"type": "array", "minItems": 1, "items": _ref("Item")},
        errors={"type": "array", "minItems": 1, "items": _ref("Error")},
    )


def _object(description: str, *, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    told: Schema = {"type": "object", "description": description}
    if required:
        told["required"] = list(required)
    return {**told, "properties": properties, "additionalProperties": False}


def _one_of(schemas: dict[str, str]) -> Schema:
    mapping = {task: _SCHEMAS + name for task, name in schemas.items()}
    return {
        "oneOf": [_ref(name) for name in schemas.values()],
        "discriminator": {"propertyName": "taskType", "mapping": mapping},
    }


def _json(name: str, **more: Any) -> Schema:
    return {"application/json": {"schema": _ref(name), **more}}


def _ref(name: str) -> Schema:
    return {"$ref": _SCHEMAS + name}


def _moved(schema: Schema) -> Schema:
    """A schema of its own, whose parts lie where those of an OpenAPI document do."""
    return json.loads(json.dumps(schema).replace('"#/$defs/', f'"{_SCHEMAS}'))
