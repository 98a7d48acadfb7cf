"""Calls of runware-sdk (it imports as `runware`), over REST and WebSocket."""

import asyncio
import json
import uuid

from outcomes import outcomes, told
from runware import Runware, is_runware_error

TOLD = told()
PLAIN = TOLD["plain"]
FILES = TOLD["files"]


def client(key: str) -> Runware:
    return Runware(api_key=key, transport=TOLD["transport"], http_base_url=TOLD["http"], ws_base_url=TOLD["ws"])


def describe(error: Exception) -> dict:
    if not is_runware_error(error):
        return {}
    return {"code": error.code, "parameter": error.parameter, "status": error.status_code, "task": error.task_uuid}


def pictures(runware: Runware) -> dict:
    """The same pictures as the test's own requests."""
    inputs = {"seedImage": FILES["seed"]}
    return {
        "text": runware.run({**PLAIN}),
        "image": runware.run({**PLAIN, "inputs": inputs, "strength": 0.6}),
        "inpaint": runware.run({**PLAIN, "inputs": {**inputs, "maskImage": FILES["mask"]}}),
        "lora": runware.run({**PLAIN, "lora": [{"model": TOLD["lora"], "weight": 1.0}]}),
        "controlNet": runware.run(
            {**PLAIN, "controlNet": [{"model": TOLD["controlNet"], "guideImage": FILES["guide"], "weight": 1.0}]}
        ),
        "accelerator": runware.run(
            {**PLAIN, "acceleratorOptions": {"fbCache": True, "fbCacheThreshold": TOLD["threshold"]}}
        ),
    }


def kinds(runware: Runware) -> dict:
    """Each outputType with another outputFormat, in both ways of delivery."""
    return {
        f"{kind} {form} {method}": runware.run(
            {**PLAIN, "outputType": kind, "outputFormat": form, "deliveryMethod": method}
        )
        for kind, form in TOLD["kinds"].items()
        for method in ("sync", "async")
    }


async def upload_then_use(runware: Runware) -> list:
    uploaded = await runware.image_upload({"image": FILES["seed"]})
    inputs = {"seedImage": uploaded[0]["imageUUID"]}
    return [*uploaded, *await runware.run({**PLAIN, "inputs": inputs, "strength": 0.6})]


async def poll(runware: Runware) -> dict:
    """The client polls by itself; here one task is asked for again after it was done."""
    task = str(uuid.uuid4())
    await runware.run({**PLAIN, "taskUUID": task})
    return {"polled": await runware.get_response({"taskUUID": task})}


async def poll_four(runware: Runware) -> dict:
    return {"polled": await runware.run({**PLAIN, "numberResults": 4, "deliveryMethod": "async"})}


async def search(runware: Runware) -> list:
    (found,) = await runware.model_search({"search": "nano", "category": "checkpoint", "limit": 3})
    return found["results"]


async def unknown_key() -> list:
    async with client("wrong" * 8) as runware:
        return await runware.run({**PLAIN})


async def main() -> None:
    async with client(TOLD["key"]) as runware:
        calls = {
            **pictures(runware),
            **kinds(runware),
            "four sync": runware.run({**PLAIN, "numberResults": 4, "deliveryMethod": "sync"}),
            "poll": poll(runware),
            "poll four": poll_four(runware),
            "upload": upload_then_use(runware),
            "cost": runware.run({**PLAIN, "includeCost": True}),
            "models": search(runware),
            "unknown model": runware.run({**PLAIN, "model": "runware:999@1"}),
            "bad parameter": runware.run({**PLAIN, "steps": 0}),
            "short prompt": runware.run({**PLAIN, "positivePrompt": "a"}),
            "unknown task": runware.get_response({"taskUUID": str(uuid.uuid4())}),
            "bad key": unknown_key(),
        }
        print(json.dumps(await outcomes(calls, describe)))


asyncio.run(main())
