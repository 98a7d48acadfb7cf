"""A node's schema with the other words that the editor's search finds it by, on every host."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from comfy_api.latest import io

if "search_aliases" in {each.name for each in fields(io.Schema)}:
    Schema = io.Schema
else:

    @dataclass
    class Schema(io.Schema):
        """As newer hosts have it. This host knows no aliases, but a newer frontend on it does."""

        search_aliases: list[str] = field(default_factory=list)

        def get_v1_info(self, cls: type[io.ComfyNode]) -> Any:
            """What the host tells the editor of a node."""
            info = super().get_v1_info(cls)
            with_aliases = make_dataclass(
                type(info).__name__, [("search_aliases", list, field(default=None))], bases=(type(info),)
            )
            return with_aliases(**vars(info), search_aliases=self.search_aliases)
