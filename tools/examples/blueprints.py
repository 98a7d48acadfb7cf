"""Blueprints of subgraphs: the common chains, each as one node of the editor's library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .editor import Graph, Node
from .graphs import SIDE, model

Blueprint = dict[str, Any]
PICTURE = ("width", "height", "seed", "steps")


def prompt(graph: Graph, text: str) -> Node:
    return graph.add("SD3LocalPrompt", positivePrompt=text)


def sampler(graph: Graph, of: Node, said: Node, **given: Any) -> Node:
    size = {"width": SIDE, "height": SIDE, "CFGScale": 5.0, "seed": 11}
    return graph.add("SD3LocalSampler", model=of[0], prompt=said[0], **{**size, **given})


def chain(
    graph: Graph,
    name: str,
    of: Node,
    said: Node,
    painted: Node,
    sockets: dict[str, tuple[Node, str]],
    settings: dict[str, tuple[Node, str]],
    aliases: tuple[str, ...],
) -> Blueprint:
    """What a chain takes: pictures first, then model and prompts, the settings of its add-ons, and the sampler's."""
    exposed = {
        **sockets,
        "model": (of, "model"),
        "positive prompt": (said, "positivePrompt"),
        "negative prompt": (said, "negativePrompt"),
        **settings,
        **{setting: (painted, setting) for setting in PICTURE},
        "CFG scale": (painted, "CFGScale"),
    }
    return graph.blueprint(name, exposed, {"images": painted[0]}, aliases)


def text_to_image(graph: Graph, name: str) -> Blueprint:
    graph.first = 101
    graph.note = "Model, prompt and sampler in one node: a prompt becomes a picture."
    of, said = model(graph), prompt(graph, "a red circle on the left, blue background")
    return chain(graph, name, of, said, sampler(graph, of, said), {}, {}, ("txt2img", "t2i", "stable diffusion 3"))


def inpaint_with_face_fix(graph: Graph, name: str) -> Blueprint:
    graph.first = 201
    graph.note = (
        "Paints the white part of the mask anew, then finds the faces in the picture and paints each again. Needs the "
        "package ultralytics. Width and height are those of the result."
    )
    of, said = model(graph), prompt(graph, "a blue face on the left, yellow background")
    start = graph.add("SD3LocalInputs", strength=0.9)
    faces = graph.add("SD3LocalFaceFix", detector="nano-face", confidence=0.3, strength=0.3, CFGScale=5.0)
    painted = sampler(graph, of, said, inputs=start[0], ultralytics=faces[0])
    sockets = {"image": (start, "seedImage"), "mask": (start, "maskImage")}
    settings = {
        "strength": (start, "strength"),
        "mask margin": (start, "maskMargin"),
        "face detector": (faces, "detector"),
        "face prompt": (faces, "positivePrompt"),
        "face strength": (faces, "strength"),
    }
    return chain(graph, name, of, said, painted, sockets, settings, ("inpainting", "mask", "face detailer"))


def guided(graph: Graph, name: str) -> Blueprint:
    graph.first = 301
    graph.note = (
        "Takes shapes from a guide image by a ControlNet, colours and style from a reference by an IP-Adapter, and "
        "less time by TeaCache. The guide is what the ControlNet was trained on, such as outlines that Canny found."
    )
    of, said = model(graph), prompt(graph, "green background with a yellow square")
    control = graph.add("SD3LocalControlNet", model="nano-edges", weight=0.8)
    reference = graph.add("SD3LocalIPAdapter", model="nano-reference", weight=0.4)
    faster = graph.add("SD3LocalAccelerator", teaCache=True)
    painted = sampler(
        graph, of, said, controlNet=control[0], ipAdapters=reference[0], acceleratorOptions=faster[0], seed=9
    )
    sockets = {"guide image": (control, "guideImage"), "reference images": (reference, "guideImages")}
    settings = {
        "ControlNet": (control, "model"),
        "ControlNet weight": (control, "weight"),
        "IP-Adapter": (reference, "model"),
        "IP-Adapter weight": (reference, "weight"),
        "tea cache": (faster, "teaCache"),
        "tea cache distance": (faster, "teaCacheDistance"),
    }
    return chain(graph, name, of, said, painted, sockets, settings, ("canny", "reference", "style", "cache", "faster"))


BLUEPRINTS: dict[str, Callable[[Graph, str], Blueprint]] = {
    "SD3 picture from text": text_to_image,
    "SD3 inpaint with face fix": inpaint_with_face_fix,
    "SD3 ControlNet + IP-Adapter + accelerator": guided,
}
"""By the name of the node."""
