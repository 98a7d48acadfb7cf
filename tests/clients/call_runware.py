"""Calls of runware, the older Python client: WebSocket alone, with the names that the API had before."""

import asyncio
import dataclasses
import json
import uuid

from outcomes import outcomes, told
from runware import IAcceleratorOptions, IControlNetGeneral, IImageInference, ILora, IModelSearch, ISafety, Runware
from runware.utils import RunwareAPIError

TOLD = told()
PLAIN = {name: value for name, value in TOLD["plain"].items() if name != "taskType"}
FILES = TOLD["files"]


def describe(error: Exception) -> dict:
    if not isinstance(error, RunwareAPIError):
        return {}
    return {name: error.error_data.get(name) for name in ("code", "parameter", "taskUUID")}


def plain(found) -> list:
    return [dataclasses.asdict(one) for one in (found if isinstance(found, list) else [found])]


async def paint(runware: Runware, **fields) -> list:
    return plain(await runware.imageInference(IImageInference(**PLAIN | fields)))


def pictures(runware: Runware) -> dict:
    """The same pictures as the test's own requests."""
    edges = IControlNetGeneral(model=TOLD["controlNet"], guideImage=FILES["guide"], weight=1.0)
    caching = IAcceleratorOptions(fbcache=True, cacheDistance=TOLD["threshold"])
    return {
        "text": paint(runware),
        "image": paint(runware, seedImage=FILES["seed"], strength=0.6),
        "inpaint": paint(runware, seedImage=FILES["seed"], maskImage=FILES["mask"]),
        "lora": paint(runware, lora=[ILora(model=TOLD["lora"], weight=1.0)]),
        "controlNet": paint(runware, controlNet=[edges]),
        "accelerator": paint(runware, acceleratorOptions=caching),
    }


def kinds(runware: Runware) -> dict:
    return {
        f"{kind} {form} sync": paint(runware, outputType=[kind], outputFormat=form)
        for kind, form in TOLD["kinds"].items()
    }


async def poll(runware: Runware, results: int) -> dict:
    accepted = await paint(runware, deliveryMethod="async", numberResults=results)
    polled = await runware.getResponse(accepted[0]["taskUUID"], numberResults=results)
    return {"accepted": accepted, "polled": plain(polled)}


async def upload_then_use(runware: Runware) -> list:
    uploaded = await runware.uploadImage(FILES["seed"])
    return [dataclasses.asdict(uploaded), *await paint(runware, seedImage=uploaded, strength=0.6)]


async def search(runware: Runware) -> list:
    found = await runware.modelSearch(IModelSearch(search="nano", category="checkpoint", limit=3))
    return plain(found.results)


async def unknown_key() -> list:
    runware = Runware(api_key="wrong" * 8, url=TOLD["ws"])
    await runware.connect()
    try:
        return await paint(runware)
    finally:
        await runware.disconnect()


async def main() -> None:
    runware = Runware(api_key=TOLD["key"], url=TOLD["ws"])
    await runware.connect()
    parts: list[str] = []
    calls = {
        **pictures(runware),
        **kinds(runware),
        "four sync": paint(runware, numberResults=4, onPartialImages=lambda some, error: parts.extend(map(str, some))),
        "poll": poll(runware, 1),
        "poll four": poll(runware, 4),
        "upload": upload_then_use(runware),
        "cost": paint(runware, includeCost=True, safety=ISafety(checkContent=False)),
        "models": search(runware),
        "unknown model": paint(runware, model="runware:999@1"),
        "bad parameter": paint(runware, steps=0),
        "short prompt": paint(runware, positivePrompt="a"),
        "unknown task": runware.getResponse(str(uuid.uuid4())),
        "bad key": unknown_key(),
    }
    ended = await outcomes(calls, describe)
    ended["parts"] = {"result": parts}
    await runware.disconnect()
    print(json.dumps(ended))


asyncio.run(main())
