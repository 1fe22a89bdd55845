"""Reports of commands for programs and for people: one JSON object, its documented keys; --quiet and --verbose."""

from __future__ import annotations

import argparse
import io
import json
import re
import warnings
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from dits_adapter import InputError, cli
from dits_adapter.cli import main
from dits_adapter.cli._outcome import Outcome, tell
from dits_adapter.evaluation.metrics import Difference, RetrievalMetrics
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.open import register_store
from dits_adapter.stores.qdrant.recall import Recall
from dits_adapter.stores.report import IngestReport
from dits_adapter.tasks.export import ExportReport
from dits_adapter.training.distill import Distillation
from dits_adapter.training.joint.train import JointReport
from tests.cli.test_faults import LINES, workplace  # noqa: F401  (a fixture)

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
ROWS = re.findall(
    r"^\| `([^`]+)` \| (.+) \|$",
    PAGE.read_text("utf-8").partition("## Reports")[2].partition("\n## ")[0],
    re.MULTILINE,
)
KEYS = {line: set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", keys))) for line, keys in ROWS}
"""Keys of each command's report, by the docs."""

COMMANDS = {
    "ingest": "videos --encoder tiny-clip --store kept://index",
    "ingest --dry-run": "videos --encoder tiny-clip --store kept://elsewhere --dry-run",
    "search": "dog --adapter adapter --store kept://index",
    "search --vectors": "--vectors vectors.npy --adapter adapter --store kept://index",
    "copy": "kept://index kept://index --to copied",
    "texts": "pairs.jsonl --store kept://index",
    "texts --remove": "--remove --store kept://index",
    "pairs": "videos --out found.jsonl",
    "tally": "feedback.jsonl",
    "embed": "pairs.jsonl --encoder tiny-clip --out cache",
    "import": "vectors.npy vectors.npy --encoder tiny-clip --out imported",
    "merge": "cache --out merged",
    "put": "imported --store kept://put",
    "bank": "queries.txt --adapter tiny-clip --out bank",
    "bias": "bank --store kept://index",
    "bias --remove": "--remove --store kept://index",
    "train": "cache.safetensors --out trained --preset deterministic --set adapter=mean-shift",
    "compare": "cache.safetensors --rows mean-shift",
    "calibrate": "cache.safetensors adapter --out calibrated",
    "gap": "cache.safetensors adapter --out gap",
    "evaluate": "--similarity scores.npy",
}
"""Commands in the order in which they are run."""

WITHOUT_WORK = {
    "adopt": "--encoder declared:acme/embed@1 --store x",
    "rebuild": "videos --encoder tiny-clip --store x",
    "switch": "new --store x",
    "recall": "queries.txt --adapter adapter --store x",
    "train-joint": "pairs.jsonl --encoder tiny-clip --out joint",
    "distill": "cache.safetensors adapter --out student",
    "export": "adapter --out exported",
}
"""Commands whose work takes a server, or long, and is left out."""


@pytest.fixture(scope="module")
def folder(workplace, tmp_path_factory):  # noqa: F811
    """Folder with inputs, in which each command has what those before it wrote."""
    folder = tmp_path_factory.mktemp("reports")
    for file in workplace.iterdir():
        (folder / file.name).symlink_to(file)
    np.save(folder / "scores.npy", np.random.default_rng(0).normal(size=(120, 120)))
    (folder / "feedback.jsonl").write_text('{"format": "dits_adapter feedback", "version": 1}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stores = {}
        register_store("kept", lambda *place, **_: stores.setdefault(place, MemoryStore(place[1])))
        yield folder


def leave_out_work(patch):
    store = MagicMock(resolve=lambda: "old", count=lambda: 3)
    store.__enter__.return_value = store
    differences = {"r1": Difference(1.0, -1.0, 3.0)}
    metrics = RetrievalMetrics.from_ranks(np.arange(1, 5))
    exported = ExportReport(Path("x"), {"text.onnx": 5}, {})
    distilled = Distillation(MagicMock(), [], 1, metrics, metrics, differences, ("a note",), Path("student"))
    joint = JointReport({"validation": {"index_r1": 50.0}}, 3, Path("joint"))
    for name, value in {
        "dits_adapter.cli._adopt.chosen_store": lambda _: store,
        "dits_adapter.stores.adopting.vector_width": lambda *_: 8,
        "dits_adapter.stores.adopting.adopt_collection": lambda *_: None,
        "dits_adapter.cli._rebuild.qdrant_store": lambda _: store,
        "dits_adapter.cli._rebuild.video_encoder": lambda *_: None,
        "dits_adapter.stores.qdrant.aliases.rebuild": lambda *_, **__: (IngestReport(), "new"),
        "dits_adapter.cli._recall.qdrant_store": lambda *_: store,
        "dits_adapter.stores.qdrant.recall.measure_recall": lambda *_, **__: [Recall("exact", 1.0, 2.0, 3.0)],
        "dits_adapter.cli._switch.qdrant_store": lambda _: store,
        "dits_adapter.stores.qdrant.aliases.switch": lambda *_: None,
        "dits_adapter.training.joint.train.train_joint": lambda *_, **__: joint,
        "dits_adapter.training.distill.distill": lambda *_, **__: distilled,
        "dits_adapter.tasks.export.export_artifact": lambda *_, **__: exported,
    }.items():
        patch.setattr(name, value)


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def reports(folder):
    """Exit code and stdout of each command, run once in their order, since each has what those before it wrote."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = {line: printed(line, words) for line, words in COMMANDS.items()}
        leave_out_work(patch)
        return done | {line: printed(line, words) for line, words in WITHOUT_WORK.items()}


def printed(line, words):
    output = io.StringIO()
    with redirect_stdout(output):
        code = main([line.split()[0], *words.split(), "--json"])
    return code, output.getvalue()


@pytest.mark.parametrize("line", COMMANDS | WITHOUT_WORK)
def test_the_report_is_one_object_with_the_documented_keys(line, reports):
    code, output = reports[line]
    assert code == 0
    assert set(strictly(output)) == KEYS[line]


def test_all_commands_with_a_report_are_documented():
    assert {line.split()[0] for line in KEYS} == LINES.keys() - {"serve", "mcp"}
    assert KEYS.keys() == COMMANDS.keys() | WITHOUT_WORK.keys()


def test_numbers_that_are_not_finite_and_foreign_values_are_written(capsys):
    values = {"nan": float("nan"), "name": "dög\udce9", "date": date(2026, 1, 2), "path": Path("x")}
    assert tell(Outcome(values), argparse.Namespace(json=True)) == 0
    assert strictly(capsys.readouterr().out) == {**values, "nan": None, "date": "2026-01-02", "path": "x"}


def test_what_other_packages_print_is_not_in_the_report(monkeypatch, capsys):
    monkeypatch.setattr(cli._evaluate, "_evaluate", lambda args: print("noise") or Outcome({"found": 0}))
    assert main(["evaluate", "--similarity", "x", "--json"]) == 0
    printed = capsys.readouterr()
    assert strictly(printed.out) == {"found": 0}
    assert printed.err == "noise\n"


def test_an_error_at_the_end_comes_after_the_report(monkeypatch, capsys):
    outcome = Outcome({"found": 0}, "found 0", error=InputError("nothing was found."))
    monkeypatch.setattr(cli._evaluate, "_evaluate", lambda args: outcome)
    assert main(["evaluate", "--similarity", "x", "--json"]) == 1
    printed = capsys.readouterr()
    assert strictly(printed.out) == {"found": 0}
    assert printed.err == "dits-adapter: nothing was found.\n"


@pytest.mark.parametrize("line", [["-q", "switch", "new"], ["switch", "new", "--quiet"], ["switch", "new"]])
def test_quiet_leaves_advice_out(line, monkeypatch, capsys):
    monkeypatch.setattr(cli._switch, "_switch", lambda args: Outcome({}, "done", "now do this"))
    assert main(line) == 0
    assert capsys.readouterr().out == "done\n" + ("now do this\n" if len(line) == 2 else "")


@pytest.mark.parametrize("place", [0, 1])
def test_verbose_logs_to_stderr(place, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "scores.npy", np.eye(3))
    line = ["evaluate", "--similarity", str(tmp_path / "scores.npy"), "--json"]
    line.insert(place, "-v")
    assert main(line) == 0
    printed = capsys.readouterr()
    assert strictly(printed.out)["text_to_video"]
    assert re.search(r"INFO dits_adapter\.cli\._logs: evaluate: done in [\d.]+ s\n$", printed.err)
    assert main(line[1:] if place == 0 else [line[0], *line[2:]]) == 0
    assert capsys.readouterr().err == ""


def test_quiet_and_verbose_exclude_each_other(capsys):
    assert main(["-q", "switch", "new", "-v"]) == 1
    assert capsys.readouterr().err == "dits-adapter: --quiet and --verbose: give one of them.\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("serch dog", "did you mean search?"),
        ("search dog --limitt 3", "there is no option --limitt; did you mean --limit?"),
        ("--json search dog", "no option --json before the name of a command; options of a command stand after"),
        ("-q --limit 3 search dog", "there is no option --limit before the name of a command; options of a"),
        ("--verbos=1 --quite search dog", "--quite before the name of a command; did you mean --quiet?"),
        ("gap cache adapter --out=", "argument --out: the path is empty"),
        ("search dog cat", "cat: more than the command takes"),
        ("search dog --limit many", "argument --limit: 'many' is no whole number"),
        ("search dog --bias much", "argument --bias: 'much' is no number"),
        ("search dog --rerank maxsin", "'maxsin' is none of maxsim, xpool; did you mean maxsim?"),
    ],
)
def test_wrong_usage_names_what_is_accepted(line, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_completes_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert "train-joint" in script
    assert "promote-if-better" in script
