"""Result of one run of a benchmark: written as JSON, Markdown and a picture, read back by the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from benchmarks import figures, paper
from benchmarks.costs import Cost
from benchmarks.scoring import ScorerRow, scorer_table
from dits_adapter._wording import validated
from dits_adapter.errors import DITSError, InputError
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.comparison import Comparison


@dataclass(frozen=True)
class Result:
    """Result of one run.

    Attributes:
        dataset: name of the record.
        title: title of the dataset.
        split: the test split.
        ablation: name of the ablation; empty for the main table.
        deviations: known or possible differences from the published protocol.
        comparison: all adapters on the test split, with versions, processor and per-query ranks.
        scorers: other ways to search; empty for ablations.
        seed: seed of splits and training.
        costs: costs by stage.
        version: version of this layout.
    """

    dataset: str
    title: str
    split: str
    ablation: str
    deviations: tuple[str, ...]
    comparison: Comparison
    scorers: tuple[ScorerRow, ...]
    seed: int
    costs: dict[str, Cost]
    version: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a file of `write`.

        Raises:
            DITSError: the file is missing, something else, or of another version.
        """
        try:
            return validated(Result, path.read_bytes())
        except OSError as error:
            raise DITSError(f"{path}: cannot be read ({error.strerror})") from None
        except InputError as error:
            raise DITSError(f"{path}: is no result of layout version 1: {error}") from None

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write `name`.json, `name`.md and `name`.png into a folder; return the files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
        files[0].write_bytes(TypeAdapter(Result).dump_json(self, indent=1) + b"\n")
        files[1].write_text(self.markdown() + "\n", encoding="utf-8")
        figures.recall(self.comparison, self.quoted(), f"{self.title}, {self.split}", files[2])
        return files

    def quoted(self) -> dict[str, tuple[float, ...]]:
        """Return the paper's figures for the same table."""
        if self.ablation:
            return paper.quoted(paper.ABLATIONS.get(self.ablation, {}))
        return paper.quoted(paper.DATASETS.get(self.dataset, {}))

    def markdown(self) -> str:
        """Write the result as Markdown."""
        parts = [f"# {self.title}, {self.split}" + (f": {self.ablation}" if self.ablation else "")]
        if self.deviations:
            reasons = "\n".join(f"- {line}" for line in self.deviations)
            parts.append(f"**Not the published protocol, or not known to be:**\n{reasons}")
        parts.append(self.comparison.markdown(self.quoted()))
        if self.scorers:
            parts += ["## Other ways to search", "Text to video.", scorer_table(self.scorers)]
        environment = ", ".join(f"{key} {value}" for key, value in self.comparison.environment.items())
        quoted = paper.COSTS if self.dataset == "msrvtt" and not self.ablation else {}
        parts += ["## Costs", cost_table(self.costs, quoted), f"Seed {self.seed}; {environment}."]
        return "\n\n".join(parts)


def cost_table(costs: Mapping[str, Cost], quoted: Mapping[str, str]) -> str:
    """Write costs by stage as Markdown, with those that the paper states for a stage."""
    head = ["stage", "wall time", "peak memory, process", "peak memory, graphics card"]
    rows = [[stage, *_cells(cost)] for stage, cost in costs.items()]
    if quoted:
        head.append(f"one RTX 3090, CLIP trained along ({paper.NOTE})")
        for row in rows:
            row.append(quoted.get(row[0], "–"))
    return markdown_table(head, rows)


def _cells(cost: Cost) -> list[str]:
    """Write wall time and memory, for tables."""
    gpu = "–" if cost.gpu_mib is None else f"{cost.gpu_mib:,.0f} MiB"
    rest = ", the rest by an earlier run" if cost.resumed else ""
    return [f"{cost.seconds:,.1f} s{rest}", f"{cost.process_mib:,.0f} MiB", gpu]
