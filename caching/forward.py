"""A call of SD3's transformer in parts, so that something can be decided between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

Residuals = Callable[[], "Sequence[torch.Tensor] | None"]
"""What ControlNets add after each block, as the transformer takes it; called only where a step is computed."""

Attention = Callable[[], "Mapping[str, Any] | None"]
"""Arguments for the attention processors; called before blocks are, and again before those that come after a decision,
for what processors know of a call may be another call's by then."""


class Forward(Protocol):
    """One call of a transformer of joint blocks, taken apart. `hidden` is the image stream [B, tokens, width].

    The parts are called in this order, each at most once: `embed`, `first`, then `rest`, or `attended` and `feed`, or
    `feed` alone on hidden states from elsewhere, then `head`. Whoever decides earlier leaves parts out.
    """

    def embed(self) -> torch.Tensor:
        """The image stream before the first block."""
        ...

    def modulated(self) -> torch.Tensor:
        """The image stream as the first block's attention is given it: normed, and modulated by the timestep."""
        ...

    def first(self) -> torch.Tensor:
        """The image stream after the first block, without what ControlNets add there."""
        ...

    def rest(self) -> torch.Tensor:
        """The image stream after the last block, with all that ControlNets add."""
        ...

    def attended(self) -> torch.Tensor:
        """As `rest`, but before the last block's feed-forward."""
        ...

    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The image stream after the last block, from what `attended` gives."""
        ...

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """The velocity [B, 16, h, w] from the image stream after the last block."""
        ...


@dataclass
class DiffusersForward:
    """A call of diffusers' SD3Transformer2DModel; computed to its end it is its `forward`, to the last bit.

    `latents` [B, 16, h, w], `context` [B, text tokens, context width], `pooled` [B, pooled width], `timestep` [B].
    """

    transformer: torch.nn.Module
    latents: torch.Tensor
    context: torch.Tensor
    pooled: torch.Tensor
    timestep: torch.Tensor
    residuals: Residuals
    attention: Attention
    _hidden: torch.Tensor = field(init=False)
    _text: torch.Tensor = field(init=False)
    _modulation: torch.Tensor = field(init=False)

    def embed(self) -> torch.Tensor:
        self._hidden = self.transformer.pos_embed(self.latents).contiguous()
        self._modulation = self.transformer.time_text_embed(self.timestep, self.pooled)
        self._text = self.transformer.context_embedder(self.context)
        return self._hidden

    def modulated(self) -> torch.Tensor:
        return self.transformer.transformer_blocks[0].norm1(self._hidden, emb=self._modulation)[0]

    def first(self) -> torch.Tensor:
        self._text, self._hidden = self._block(0, self._hidden, self._text, self._arguments())
        return self._hidden

    def rest(self) -> torch.Tensor:
        arguments = self._between()
        return self._block(-1, self._hidden, self._text, arguments)[1]

    def attended(self) -> torch.Tensor:
        arguments, last = self._between(), self.transformer.transformer_blocks[-1]
        normed, gate, _, _, _, *dual = last.norm1(self._hidden, emb=self._modulation)
        words = last.norm1_context(self._text, self._modulation)
        attended, _ = last.attn(hidden_states=normed, encoder_hidden_states=words, **arguments)
        hidden = self._hidden + gate.unsqueeze(1) * attended
        if dual:
            normed, gate = dual
            hidden = hidden + gate.unsqueeze(1) * last.attn2(hidden_states=normed, **arguments)
        return hidden

    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        last = self.transformer.transformer_blocks[-1]
        # The norm's own modulation has no need of the stream that it norms: one token stands for all.
        _, _, shift, scale, gate, *_ = last.norm1(hidden[:, :1], emb=self._modulation)
        fed = last.ff(last.norm2(hidden) * (1 + scale[:, None]) + shift[:, None])
        return hidden + gate.unsqueeze(1) * fed

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        import torch

        transformer, (height, width) = self.transformer, self.latents.shape[-2:]
        patch, channels = transformer.config.patch_size, transformer.out_channels
        hidden = transformer.proj_out(transformer.norm_out(hidden, self._modulation))
        rows, columns = height // patch, width // patch
        patches = hidden.reshape(len(hidden), rows, columns, patch, patch, channels)
        pixels = torch.einsum("nhwpqc->nchpwq", patches)
        return pixels.reshape(len(hidden), channels, rows * patch, columns * patch)

    def _between(self) -> dict[str, Any]:
        """The blocks between the first and the last one; gives what the last one's attention is told."""
        blocks = self.transformer.transformer_blocks
        added, arguments = self.residuals(), self._arguments()
        for index in range(len(blocks) - 1):
            if index > 0:
                self._text, self._hidden = self._block(index, self._hidden, self._text, arguments)
            if added is not None:
                # diffusers' own rule for fewer residuals than blocks.
                self._hidden = self._hidden + added[int(index / (len(blocks) / len(added)))]
        return arguments

    def _block(
        self, index: int, hidden: torch.Tensor, text: torch.Tensor, arguments: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transformer.transformer_blocks[index](
            hidden_states=hidden,
            encoder_hidden_states=text,
            temb=self._modulation,
            joint_attention_kwargs=arguments,
        )

    def _arguments(self) -> dict[str, Any]:
        given = dict(self.attention() or {})
        if "ip_adapter_image_embeds" in given:
            # The one IP-Adapter that diffusers itself loads into the transformer.
            embeds = given.pop("ip_adapter_image_embeds")
            projected, temb = self.transformer.image_proj(embeds, self.timestep)
            given |= {"ip_hidden_states": projected, "temb": temb}
        return given
