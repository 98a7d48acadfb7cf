"""The request: every object and option of the hosted API, each declared once.

Names, ranges, steps and defaults are those of the API's page for Stable Diffusion 3. A request comes in through `parse`
in parse.py, which reports everything that is wrong with it; a model made directly checks its fields one by one, but not
how they fit together (rules.py). A field that is None was not given.
"""

from __future__ import annotations

import secrets
from typing import Literal

from .fields import (
    MAX_INTEGER,
    REQUIRED,
    HttpUrl,
    NonEmptyText,
    RequestObject,
    Text,
    Uuid4,
    integer,
    number,
    option,
    text,
)
from .scheduler_names import DEFAULT_SCHEDULER, UNSUPPORTED_SCHEDULERS, SchedulerName

MAX_SEED = MAX_INTEGER
"""The API's page says 9223372036854776000, which is 2^63 - 1 rounded to a JSON number; the true value counts here."""

DEFAULT_GUIDANCE_SCALE = 7.0
"""The guidance scale when CFGScale is not given: the API names none, and diffusers' SD3 pipeline takes 7.0."""

SIZE_MULTIPLE = 16
"""A latent pixel stands for 8 x 8 pixels (VAE), and the transformer takes latents in patches of 2 x 2."""

IMAGE_FORMS = "a UUID, URL, data URI or base64"


def random_seed() -> int:
    """A seed for a request without one: uniform in the unsigned 32-bit range, as the API says."""
    return secrets.randbelow(2**32)


class Lora(RequestObject):
    """A LoRA and how strongly it is applied."""

    model: Text = text("LoRA to apply: a file name or an AIR identifier.", REQUIRED, min=1)
    weight: float = number(
        "Strength of the LoRA; 0 turns it off, a negative value steers away from it.", 1.0, min=-4, max=4
    )
    transformer: Literal["high", "low", "both"] = option(
        "Part of the sampling that the LoRA acts in: early steps at high noise, late steps at low noise, or both.",
        "both",
    )


class ControlNet(RequestObject):
    """A ControlNet, its guide image, and the window of steps that it acts in."""

    model: Text = text("ControlNet to apply: a file name or an AIR identifier.", REQUIRED, min=1)
    weight: float = number(
        "Strength of the ControlNet; 0 turns it off, a negative value steers away.", 1.0, min=-4, max=4
    )
    guide_image: Text = text(f"Image that guides the structure: {IMAGE_FORMS}.", REQUIRED, min=1, format="image")
    control_mode: Literal["balanced", "controlnet", "prompt"] = option(
        "Which leads where guide image and prompt disagree: both alike, the ControlNet, or the prompt.", "balanced"
    )
    end_step: int | None = integer(
        "Step that the influence ends before; after startStep, at most steps.", min=1, unit="steps"
    )
    end_step_percentage: int | None = integer(
        "Share of the steps after which the influence ends; above startStepPercentage.", min=1, max=100, unit="%"
    )
    start_step: int | None = integer("First step under influence, counted from 0; before endStep.", min=0, unit="steps")
    start_step_percentage: int | None = integer(
        "Share of the steps after which the influence begins; below endStepPercentage.", min=0, max=99, unit="%"
    )


class IPAdapter(RequestObject):
    """An IP-Adapter and the pictures it takes style and content from."""

    model: Text = text("IP-Adapter to apply: a file name or an AIR identifier.", REQUIRED, min=1)
    weight: float = number(
        "Strength of the IP-Adapter; 0 turns it off, a negative value steers away.", 1.0, min=-4, max=4
    )
    guide_images: tuple[NonEmptyText, ...] = option(
        f"Pictures to take style and content from, each {IMAGE_FORMS}.", REQUIRED, min_length=1, format="image"
    )
    combine_method: Literal["concat", "add", "subtract", "average", "norm_average"] = option(
        "How the embeddings of several pictures become one conditioning.", "concat"
    )
    embed_scaling: Literal["only_v", "kv", "kv_penalty_c", "k_mean_v_penalty_c"] = option(
        "Which of the attention's keys (k) and values (v) the weight scales.", "kv"
    )
    weight_type: Literal[
        "normal",
        "ease_in",
        "ease_out",
        "ease_in_out",
        "weak_input",
        "weak_output",
        "weak_middle",
        "strong_middle",
        "style_transfer",
        "composition",
        "strong_style_transfer",
        "style_and_composition",
        "strong_style_and_composition",
    ] = option("How the influence is spread over the generation.", "normal")
    weight_composition: float | None = number(
        "Weight of layout alone, for weight types that treat it apart.", min=0, max=1
    )


class AcceleratorOptions(RequestObject):
    """Caches that reuse work of earlier steps, and the window of steps that they may act in."""

    cache_end_step: int | None = integer(
        "Step that reuse ends before; after cacheStartStep, at most steps.", min=1, unit="steps"
    )
    cache_end_step_percentage: int | None = integer(
        "Share of the steps after which reuse ends; above cacheStartStepPercentage.", min=1, max=100, unit="%"
    )
    cache_max_consecutive_steps: int = integer(
        "Most steps in a row that may reuse work before one is computed in full.", 3, min=1, max=5, unit="steps"
    )
    cache_start_step: int | None = integer(
        "First step that may reuse work, counted from 0; before cacheEndStep.", min=0, unit="steps"
    )
    cache_start_step_percentage: int | None = integer(
        "Share of the steps after which reuse may begin; below cacheEndStepPercentage.", min=0, max=99, unit="%"
    )
    fb_cache: bool = option(
        "First Block Cache: skip the other blocks while the first one's output hardly changes.", False
    )
    fb_cache_threshold: float = number(
        "When First Block Cache reuses; the lower, the more it reuses.", 0.25, min=0, max=1
    )
    tea_cache: bool = option("TeaCache: skip steps while the timestep-modulated input hardly changes.", False)
    tea_cache_distance: float = number(
        "How much change TeaCache lets add up; the higher, the more it reuses.", 0.5, min=0, max=1
    )
    db_cache: bool = option("DB Cache: skip the middle blocks while the first blocks' output hardly changes.", False)
    db_cache_threshold: float = number("When DB Cache reuses; the lower, the more it reuses.", 0.25, min=0, max=1)
    db_cache_skip_interval: int = integer(
        "Steps between DB Cache's forced refreshes; the higher, the more it reuses.", 5, min=1, unit="steps"
    )


class Inputs(RequestObject):
    """The pictures that a generation starts from."""

    seed_image: Text | None = text(f"Picture to start from: {IMAGE_FORMS}.", min=1, format="image")
    mask_image: Text | None = text(
        f"Where to change the seed image, white for change and black for keep: {IMAGE_FORMS}.", min=1, format="image"
    )


class Outpaint(RequestObject):
    """How far the seed image grows on each side; width and height are those of the grown picture."""

    bottom: int | None = integer("Pixels to add below the seed image.", min=0, unit="px")
    left: int | None = integer("Pixels to add left of the seed image.", min=0, unit="px")
    right: int | None = integer("Pixels to add right of the seed image.", min=0, unit="px")
    top: int | None = integer("Pixels to add above the seed image.", min=0, unit="px")


class Safety(RequestObject):
    """Whether pictures are checked for unsafe content."""

    check_content: bool = option("Check every picture and flag unsafe ones in the result.", False)
    mode: Literal["none", "fast"] = option(
        "How to check: none, or one fast pass. With checkContent on, none means fast; with it off, nothing is checked.",
        "none",
    )

    @property
    def effective_mode(self) -> Literal["none", "fast"]:
        """The mode that counts: `check_content` switches checking on and off, and the one real mode is "fast"."""
        return "fast" if self.check_content else "none"


class Ultralytics(RequestObject):
    """Finding faces in the finished picture and painting them again in detail."""

    cfg_scale: float = number(
        "Guidance scale when faces are painted again.", 8.0, min=0, max=50, step=0.1, alias="CFGScale"
    )
    confidence: float = number("How sure the detector must be of a face; lower finds more.", 0.9, min=0, max=1)
    mask_blur: int = integer("Softness of the seam between new face and picture.", 5, min=0, max=100, unit="px")
    mask_padding: int = integer(
        "Margin around a found face that is painted again with it.", 5, min=0, max=20, unit="px"
    )
    negative_prompt: Text | None = text("What the new faces should not show; the request's own when not given.")
    positive_prompt: Text | None = text("What the new faces should show; the request's own when not given.")
    steps: int = integer("Denoising steps for each face.", 20, min=1, max=100, unit="steps")
    strength: float = number("How much a face may change: 0 keeps it, 1 paints it anew.", 0.3, min=0, max=1)


class ImageInference(RequestObject):
    """One task: what to paint, with what, and how to deliver it."""

    task_type: Literal["imageInference"] = option("Kind of task; this one makes images.", REQUIRED)
    task_uuid: Uuid4 = text(
        "Identifier of the task, a fresh UUID v4; results carry it.", REQUIRED, alias="taskUUID", format="uuid"
    )
    output_type: Literal["URL", "base64Data", "dataURI"] = option("How a result carries its picture.", "URL")
    output_format: Literal["JPG", "PNG", "WEBP"] = option(
        "File format of the picture: JPG is small, PNG is lossless, WEBP compresses best.", "JPG"
    )
    output_quality: int = integer(
        "Compression quality of JPG and WEBP; higher is better and larger.", 95, min=20, max=99
    )
    webhook_url: HttpUrl | None = text(
        "Address that gets each finished result as JSON by HTTP POST.", alias="webhookURL", format="uri"
    )
    delivery_method: Literal["sync", "async"] = option(
        "Whether the answer waits for the results (sync) or they are polled for later (async).", "sync"
    )
    upload_endpoint: HttpUrl | None = text("Address that gets each picture's file by HTTP PUT.", format="uri")
    safety: Safety | None = option("Whether pictures are checked for unsafe content.")
    ttl: int | None = integer("How long a picture's URL stays valid; only with outputType URL.", min=60, unit="s")
    include_cost: bool = option("Whether each result tells its cost.", False)
    number_results: int = integer(
        "How many pictures to make; picture i, counted from 0, has the seed seed + i.", 1, min=1, max=20
    )
    accelerator_options: AcceleratorOptions | None = option("Caches that reuse work of earlier steps.")
    inputs: Inputs | None = option("Pictures that the generation starts from.")
    model: Text = text("Model to paint with: a file name or an AIR identifier.", REQUIRED, min=1)
    positive_prompt: Text | None = text("What the picture should show.", min=2, max=3000, unit="characters")
    negative_prompt: Text | None = text(
        "What the picture should not show; without effect at a CFGScale of 1 or less.",
        min=2,
        max=3000,
        unit="characters",
    )
    width: int = integer(
        "Width of the picture; a multiple of 16, for the VAE shrinks by 8 and the transformer pairs what is left.",
        1024,
        min=64,
        multiple_of=SIZE_MULTIPLE,
        unit="px",
    )
    height: int = integer(
        "Height of the picture; a multiple of 16, for the VAE shrinks by 8 and the transformer pairs what is left.",
        1024,
        min=64,
        multiple_of=SIZE_MULTIPLE,
        unit="px",
    )
    seed: int | None = integer(
        "Number that the noise comes from; when not given, random in 32 bits.", min=0, max=MAX_SEED
    )
    steps: int = integer("Denoising steps; more of them add detail and take longer.", 28, min=1, unit="steps")
    scheduler: SchedulerName | None = option(
        f"Sampler and noise schedule; {DEFAULT_SCHEDULER} when not given. "
        f"{' and '.join(UNSUPPORTED_SCHEDULERS)} is listed by the API but makes no picture, and is refused."
    )
    cfg_scale: float | None = number(
        "Guidance scale, how closely the picture keeps to the prompt; 1 or less turns guidance off, 7 when not given.",
        min=0,
        max=30,
        alias="CFGScale",
    )
    strength: float = number("How much of the seed image may change: 0 keeps it, 1 ignores it.", 0.8, min=0, max=1)
    mask_margin: int | None = integer(
        "Context around the mask; the masked part is cut out with it, painted larger and put back.",
        min=32,
        max=128,
        unit="px",
    )
    clip_skip: int | None = integer(
        "How many of CLIP's last layers to leave out, beyond what the model does.", min=0, max=4, unit="layers"
    )
    outpaint: Outpaint | None = option("How far the seed image grows on each side.")
    lora: tuple[Lora, ...] | None = option("LoRAs to apply together.", min_length=1)
    control_net: tuple[ControlNet, ...] | None = option("ControlNets to apply together.", min_length=1)
    ip_adapters: tuple[IPAdapter, ...] | None = option("IP-Adapters to apply together.", min_length=1)
    ultralytics: Ultralytics | None = option("Finding faces and painting them again in detail.")

    @property
    def effective_cfg_scale(self) -> float:
        """The guidance scale to sample with."""
        return DEFAULT_GUIDANCE_SCALE if self.cfg_scale is None else self.cfg_scale

    @property
    def effective_scheduler(self) -> SchedulerName:
        """The scheduler to sample with."""
        return self.scheduler or DEFAULT_SCHEDULER

    @property
    def effective_negative_prompt(self) -> str | None:
        """The negative prompt to sample with: None where guidance is off, because nothing would use it."""
        return self.negative_prompt if self.effective_cfg_scale > 1 else None
