"""What a run did, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .features import Account
    from .samplers import Scheduler


@dataclass(frozen=True)
class Report:
    """The facts of one run; `seconds` by stage, in the order they were first entered."""

    model: str
    width: int
    height: int
    steps: int
    scheduler: Scheduler
    guidance_scale: float
    guided: bool
    seeds: tuple[int, ...]
    seconds: Mapping[str, float]
    accounts: tuple[Account, ...] = ()
    """What each feature did, in the order in which they act."""
    executed: int = 0
    """Steps that were run, of all results and of faces that were painted again."""

    @property
    def reused(self) -> int:
        """How many of the executed steps an accelerator did not compute."""
        return sum(run["reused"] for account in self.accounts for run in account.data.get("runs", ()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know without asking."""
        told = [note for account in self.accounts for note in account.notes]
        return (*told, self.scheduler.notice) if self.scheduler.notice else tuple(told)

    def __str__(self) -> str:
        guidance = f"guidance {self.guidance_scale:g}" if self.guided else "no guidance"
        lines = [
            f"{self.model}, {self.width} x {self.height}",
            f"{self.steps} steps of {self.scheduler.name} ({self.scheduler.schedule} schedule), {guidance}",
            f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}",
            ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.seconds.items()),
        ]
        lines += [line for account in self.accounts for line in account.lines]
        if self.scheduler.notice:
            lines.append(self.scheduler.notice)
        return "\n".join(lines)
