"""SD3LocalIPAdapter: guide images that lead what the picture shows."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..host import folders
from ..pipelines.materials import Materials
from ..pipelines.request import IPAdapter
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget

if TYPE_CHECKING:
    from ..pipelines.ip_adapter import ImageEncoder, IPAdapterFile, VisionFile

AUTO = "auto"
FOLDER, ENCODERS = "ipadapter", "clip_vision"

TIPS = {
    "weight": "From -4 to 4. Above 1 the guide images soon win over the prompt.",
    "combineMethod": "concat: all of them are looked at. add: the sum. subtract: the first without the mean of the "
    "others. average: the mean. norm_average: the mean in which each counts alike. All are the same for one image.",
    "embedScaling": "only_v: the values alone, as diffusers does it. kv: keys too, so a larger weight also makes the "
    "picture look at the guide images more. kv_penalty_c: as kv, with the weight times the model's width / 1280: "
    "weaker in small models, stronger in large ones. k_mean_v_penalty_c: likewise, but of the values only their mean "
    "is scaled, which keeps more detail.",
    "weightType": "Over the depth of the model: normal is even, ease_in strong in the first blocks, ease_out in the "
    "last, ease_in_out in the middle; weak_input, weak_middle and weak_output have a fifth of the weight in the first, "
    "second or last third, strong_middle in all but the second. Experimental, because nothing is published for SD3: "
    "composition acts in the blocks before the middle, style_transfer in those after it, "
    "strong_style_transfer everywhere but where composition does, and the two with style_and_composition in both.",
    "weightComposition": "From 0 to 1, and only in composition, style_and_composition and "
    "strong_style_and_composition. Not set: the weight counts there too.",
}


class SD3LocalIPAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalIPAdapter",
            display_name="SD3 IP-Adapter",
            category=sockets.CATEGORY,
            description="Pictures lead what the result shows, beside the prompt. Several in a chain act together.",
            search_aliases=["image prompt", "reference image", "style transfer", "apply IPAdapter", "SigLIP"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=folders.add_ons(FOLDER),
                    display_name="model",
                    tooltip="An IP-Adapter for Stable Diffusion 3 or 3.5 from the folder ipadapter; it must be made "
                    "for the model. nano-reference is the one that comes with this pack, for sd3-nano.",
                ),
                io.Image.Input(
                    "guideImages",
                    display_name="guide images",
                    tooltip="Pictures to take style and content from. Every picture of a batch is one of them, and all "
                    "of them count for all results. Each is squashed to the square that the image encoder sees.",
                ),
                io.Combo.Input(
                    "encoder",
                    options=[AUTO, *folders.add_ons(ENCODERS)],
                    default=AUTO,
                    display_name="encoder",
                    tooltip="What sees the guide images: the SigLIP that the adapter was trained with, from the folder "
                    "clip_vision. auto: the one there that fits the adapter, for nano-reference nano-vision, which "
                    "comes with this pack. Without effect when a clip vision is connected.",
                ),
                _widget("weight"),
                _widget("combineMethod"),
                _widget("embedScaling"),
                _widget("weightType"),
                _widget("weightComposition"),
                io.ClipVision.Input(
                    "clipVision",
                    display_name="clip vision",
                    tooltip="A SigLIP from ComfyUI's Load CLIP Vision, in place of the encoder above.",
                    optional=True,
                ),
                sockets.IPAdapter.Input(
                    "ipAdapters",
                    display_name="ip adapters",
                    tooltip="Earlier IP-Adapters, from another SD3 IP-Adapter: all of them act.",
                    optional=True,
                ),
            ],
            outputs=[
                sockets.IPAdapter.Output(
                    display_name="ip adapters",
                    tooltip="This IP-Adapter and the earlier ones, for SD3 Sampler or the next SD3 IP-Adapter.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, encoder=AUTO, **_values):
        """Changes when a file does, so that a replaced one is read anew under its old name."""
        return [
            folders.stamp(path)
            for path in (folders.add_on_path(model, FOLDER, "model"), *_encoder_paths(encoder, model))
        ]

    @classmethod
    def execute(cls, model, guideImages, encoder, clipVision=None, ipAdapters=None, **values) -> io.NodeOutput:
        from ..pipelines.loading.faults import within

        earlier = sockets.Spec({}) if ipAdapters is None else ipAdapters
        with within(f"ipAdapters[{len(earlier.fields.get('ipAdapters', ()))}]"):
            opened = _opened(model, encoder, clipVision)
        # One file may be in a chain twice, with another encoder each.
        names = (model, *(f"{model} ({number})" for number in range(2, len(earlier.materials.ip_adapters) + 3)))
        name = next(name for name in names if earlier.materials.ip_adapters.get(name, opened) is opened)
        pictures = sockets.named(*guideImages.split(1))
        item = {"model": name, "guideImages": tuple(pictures), **set_fields(IPAdapter, values)}
        materials = Materials(pictures=pictures, ip_adapters={name: opened})
        return io.NodeOutput(earlier.followed_by("ipAdapters", item, materials))


def _widget(name: str) -> io.Input:
    made = widget(IPAdapter, name)
    made.tooltip = f"{made.tooltip} {TIPS[name]}"
    return made


def _encoder_paths(encoder: str, model: str) -> list[Path]:
    """The file of a picked encoder; for auto, all files that it may be."""
    if encoder != AUTO:
        names = [encoder]
    elif model == folders.NANO_REFERENCE:
        names = [folders.NANO_VISION]
    else:
        names = folders.add_ons(ENCODERS)
    return [folders.add_on_path(name, ENCODERS, "encoder") for name in names]


def _opened(model: str, encoder: str, clip_vision: Any) -> IPAdapterFile:
    from ..pipelines.ip_adapter import fitting_encoder

    path = folders.add_on_path(model, FOLDER, "model")
    if clip_vision is not None:
        from ..host.clip_vision import ComfyImageEncoder

        return _adapter.__wrapped__(path, folders.stamp(path), ComfyImageEncoder(clip_vision))
    files = _encoder_paths(encoder, model)
    chosen = fitting_encoder(path, files) if encoder == AUTO else files[0]
    return _adapter(path, folders.stamp(path), _encoder(chosen, folders.stamp(chosen)))


# Another weight runs the node again, but must not read its files again. What ComfyUI loaded is not kept alive for that.
@lru_cache(maxsize=2)
def _adapter(path: Path, stamp: tuple[int, int], encoder: ImageEncoder) -> IPAdapterFile:
    from ..host.memory import ComfyPlacement
    from ..pipelines.ip_adapter import IPAdapterFile

    return IPAdapterFile(path, encoder, ComfyPlacement("auto"))


@lru_cache(maxsize=2)
def _encoder(path: Path, stamp: tuple[int, int]) -> VisionFile:
    from ..host.memory import ComfyPlacement
    from ..pipelines.ip_adapter import VisionFile

    return VisionFile(path, ComfyPlacement("auto"))
