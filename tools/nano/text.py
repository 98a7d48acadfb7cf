"""Stage 2: the two CLIP-shaped text encoders, and the conditioning of every caption.

They are trained to say what a caption names. The transformer then learns from a clean code instead of from words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .captions import Said, every_caption
from .clock import Clock, autocast, device, learning_rate, load, save
from .world import PALETTE, POSITIONS, SUBJECTS

WIDTH, LAYERS, LENGTH = 64, 6, 77
EOS = 49407
# Captions are at most this long with their marks. Attention is causal: what follows the end changes nothing before it.
SHORT = 16
ANSWERS: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "colour": tuple(PALETTE),
    "background": tuple(PALETTE),
    "position": tuple(POSITIONS),
}


class Tokens:
    """Both encoders' token ids: one vocabulary, padded with the end mark for CLIP-L and with "!" for CLIP-G."""

    def __init__(self, folder: Path):
        from transformers import CLIPTokenizer

        self.clip_l = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
        self.clip_g = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH, pad_token="!")

    def __call__(self, captions: Sequence[str], length: int = LENGTH) -> tuple[Tensor, Tensor]:
        """Ids [B, length] for CLIP-L and CLIP-G."""
        options: dict[str, Any] = {
            "padding": "max_length",
            "truncation": True,
            "max_length": length,
            "return_tensors": "pt",
        }
        return self.clip_l(list(captions), **options).input_ids, self.clip_g(list(captions), **options).input_ids


class Encoders(nn.Module):
    """CLIP-L and CLIP-G at width 64, and the conditioning SD3 makes of them."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        shape: dict[str, Any] = {
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 1,
            "projection_dim": WIDTH,
            "bos_token_id": EOS - 1,
            "eos_token_id": EOS,
        }
        self.clip_l = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", pad_token_id=EOS, **shape))
        self.clip_g = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", pad_token_id=0, **shape))

    def tables(self) -> list[nn.Parameter]:
        """The token tables, [49408, 64] each."""
        return [model.get_input_embeddings().weight for model in (self.clip_l, self.clip_g)]

    def forward(self, ids_l: Tensor, ids_g: Tensor) -> tuple[Tensor, Tensor]:
        """Context [B, T, 128] (the last hidden states but one) and pooled [B, 128] (CLIP-L raw, CLIP-G projected)."""
        out_l = self.clip_l(ids_l, output_hidden_states=True)
        out_g = self.clip_g(ids_g, output_hidden_states=True)
        context = torch.cat([out_l.hidden_states[-2], out_g.hidden_states[-2]], dim=-1)
        return context, torch.cat([out_l.pooler_output, out_g.text_embeds], dim=-1)


class Reader(nn.Module):
    """Linear questions to a code: which subject, colour, background, position, or none named."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(answers) + 1) for name, answers in ANSWERS.items()})

    def forward(self, code: Tensor) -> dict[str, Tensor]:
        return {name: head(code) for name, head in self.heads.items()}


def labels(named: Sequence[Said]) -> dict[str, Tensor]:
    """Class numbers [B] per attribute, the last class where it is not named."""
    return {
        name: torch.tensor([len(a) if getattr(s, name) is None else a.index(getattr(s, name)) for s in named])
        for name, a in ANSWERS.items()
    }


def train(work: Path, tokenizer: Path, minutes: float) -> None:
    """Trains for `minutes`; writes `text.pt`. Every part of what the transformer sees has to answer for itself."""
    on = device()
    torch.manual_seed(0)
    captions = every_caption()
    ids_l, ids_g = (ids.to(on) for ids in Tokens(tokenizer)(list(captions), SHORT))
    answers = {name: value.to(on) for name, value in labels(list(captions.values())).items()}
    # Word orders have the same chance whatever the number of captions of that form; short forms have few.
    forms = [tuple(getattr(s, name) is None for name in ANSWERS) for s in captions.values()]
    weight = torch.tensor([1 / forms.count(form) for form in forms])
    model = Encoders().to(on)
    used = torch.zeros(EOS + 1, 1, device=on)
    used[torch.cat([ids_l, ids_g]).unique()] = 1
    with torch.no_grad():
        for table in model.tables():
            # Words of no caption mean nothing, and zeros compress.
            table.normal_(0, 0.5).mul_(used)
    readers = nn.ModuleList([Reader(WIDTH) for _ in range(4)]).to(on)
    parameters = [*model.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
    clock, step = Clock(minutes), 0
    while clock.progress < 1:
        chosen = torch.multinomial(weight, 192, replacement=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(2e-3, step, clock.progress, warmup=50)
        with autocast(on):
            context, pooled = model(ids_l[chosen], ids_g[chosen])
            end = (ids_l[chosen] == EOS).int().argmax(-1)
            at_end = context[torch.arange(len(chosen), device=on), end]
            codes = [*pooled.float().split(WIDTH, -1), *at_end.float().split(WIDTH, -1)]
            replies = [reader(code) for reader, code in zip(readers, codes, strict=True)]
        loss = torch.stack(
            [
                nn.functional.cross_entropy(reply[name].float(), answers[name][chosen])
                for reply in replies
                for name in ANSWERS
            ]
        ).sum()
        # Keeps codes near unit size, as adaLN and the context projection expect them.
        loss = loss + 1e-3 * torch.stack([(code.square().mean() - 1).square() for code in codes]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 20 == 0:
            right = torch.stack(
                [(r[n].argmax(-1) == answers[n][chosen]).float().mean() for r in replies for n in ANSWERS]
            )
            sizes = [round(code.square().mean().sqrt().item(), 2) for code in codes]
            print(
                f"text step {step} {clock.elapsed:.0f} s loss {loss.item():.3f} right {right.min():.3f} size {sizes}",
                flush=True,
            )
    save(work / "text.pt", model.state_dict())


def load_encoders(work: Path) -> Encoders:
    """The trained encoders, in fp32, for use."""
    model = Encoders()
    model.load_state_dict(load(work / "text.pt"))
    return model.to(device()).eval()


@torch.no_grad()
def conditioning(
    encoders: Encoders, tokens: Tokens, captions: Sequence[str], batch: int = 128
) -> tuple[Tensor, Tensor]:
    """Context [B, 77, 128] and pooled [B, 128] of `captions`, fp32 on the CPU."""
    on = next(encoders.parameters()).device
    made = []
    for first in range(0, len(captions), batch):
        ids_l, ids_g = tokens(captions[first : first + batch])
        made.append([part.float().cpu() for part in encoders(ids_l.to(on), ids_g.to(on))])
    return torch.cat([context for context, _ in made]), torch.cat([pooled for _, pooled in made])


def cache(work: Path, tokenizer: Path) -> None:
    """Writes `conditioning.pt`: {captions, context [N, 77, 128], pooled [N, 128]}, fp16, of every caption there is."""
    captions = list(every_caption())
    context, pooled = conditioning(load_encoders(work), Tokens(tokenizer), captions)
    save(work / "conditioning.pt", {"captions": captions, "context": context.half(), "pooled": pooled.half()})
