"""What one run of a benchmark found: written as JSON, Markdown and a picture, read back by the report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter, ValidationError

from benchmarks import figures, paper
from benchmarks.scoring import ScorerRow, scorer_table
from dits_adapter.errors import DITSError
from dits_adapter.training.compare import Comparison


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        dataset: name of the record.
        title: its title.
        split: the test split.
        ablation: which one; empty for the main table.
        deviations: in what the run differs from the published protocol.
        comparison: all adapters on the test split, with versions, processor and per-query ranks.
        scorers: other ways to search; empty for ablations.
        seed: of splits and training.
        seconds: wall time of each stage in this run; what was taken up from an earlier run took none.
        peak_mib: greatest memory of the process, and of the graphics card where there is one, in MiB.
        version: of this layout.
    """

    dataset: str
    title: str
    split: str
    ablation: str
    deviations: tuple[str, ...]
    comparison: Comparison
    scorers: tuple[ScorerRow, ...]
    seed: int
    seconds: dict[str, float]
    peak_mib: dict[str, float]
    version: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote.

        Raises:
            DITSError: the file is missing, something else, or of another version.
        """
        try:
            return TypeAdapter(Result).validate_json(path.read_bytes())
        except OSError as error:
            raise DITSError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise DITSError(f"{path}: is no result of layout version 1: {error}") from None

    def write(self, folder: Path, name: str) -> None:
        """Write `name`.json, `name`.md and `name`.png into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_bytes(TypeAdapter(Result).dump_json(self, indent=1) + b"\n")
        (folder / f"{name}.md").write_text(self.markdown() + "\n", encoding="utf-8")
        figures.recall(self.comparison, self.quoted(), f"{self.title}, {self.split}", folder / f"{name}.png")

    def quoted(self) -> dict[str, tuple[float, ...]]:
        """Return the paper's figures that belong beside these."""
        if self.ablation:
            return paper.quoted(paper.ABLATIONS.get(self.ablation, {}))
        return paper.quoted(paper.DATASETS.get(self.dataset, {}))

    def markdown(self) -> str:
        """Write all as Markdown."""
        parts = [f"# {self.title}, {self.split}" + (f": {self.ablation}" if self.ablation else "")]
        if self.deviations:
            parts.append("**Not the published protocol:**\n" + "\n".join(f"- {line}" for line in self.deviations))
        parts.append(self.comparison.markdown(self.quoted()))
        if self.scorers:
            parts += ["## Other ways to search", "Text to video.", scorer_table(self.scorers)]
        parts += ["## Costs", "\n".join(f"- {line}" for line in self._costs())]
        return "\n\n".join(parts)

    def _costs(self) -> list[str]:
        environment = ", ".join(f"{key} {value}" for key, value in self.comparison.environment.items())
        stages = ", ".join(f"{stage} {seconds:,.1f} s" for stage, seconds in self.seconds.items())
        memory = ", ".join(f"{place} {mib:,.0f} MiB" for place, mib in self.peak_mib.items())
        lines = [f"wall time: {stages}", f"peak memory: {memory}", f"seed {self.seed}, {environment}"]
        if self.dataset == "msrvtt" and not self.ablation:
            lines += [f"{name}: {cost} ({paper.NOTE})" for name, cost in paper.COSTS.items()]
        return lines


def peak_mib() -> dict[str, float]:
    """Return the greatest memory so far of this process and of the graphics card, in MiB."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    peak = {"process": used}
    if torch.cuda.is_available():
        peak["graphics card"] = torch.cuda.max_memory_allocated() / 1024**2
    return peak
