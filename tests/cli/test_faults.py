"""Every command in a bad place: one sentence on stderr, the right exit code, no traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
from pydantic import BaseModel

from dits_adapter import Artifact, EmbeddingSpace, load_encoder
from dits_adapter.adapters import AffineAdapter, AffineConfig
from dits_adapter.cli import main
from dits_adapter.cli._entry import EXIT_CODES, guard
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import StoreError
from tests.serve.conftest import write_clip

WIDTH = 32
LINES = {
    "adopt": "--encoder IN --store http://127.0.0.1:1 --patience 0.1",
    "ingest": "IN --encoder CLIP --store OUT",
    "rebuild": "IN --encoder CLIP --store http://127.0.0.1:1 --patience 0.1",
    "switch": "new --store IN",
    "search": "dog --adapter ADAPTER --store IN",
    "recall": "IN --adapter ADAPTER --store OUT",
    "copy": "IN OUT",
    "texts": "IN --store OUT",
    "serve": "--adapter IN --port 0 --no-browser",
    "pairs": "IN --out OUT",
    "tally": "IN",
    "mcp": "--adapter IN --store http://127.0.0.1:1 --patience 0.1",
    "embed": "IN --encoder CLIP --out OUT",
    "import": "IN IN --encoder CLIP --out OUT",
    "merge": "IN --out OUT",
    "put": "IN --store OUT",
    "bank": "IN --adapter CLIP --out OUT",
    "bias": "IN --store OUT",
    "train": "IN --out OUT --preset deterministic --set adapter=mean-shift",
    "train-joint": "IN --encoder CLIP --out OUT",
    "compare": "IN --out OUT --rows mean-shift",
    "distill": "IN ADAPTER --out OUT",
    "calibrate": "IN ADAPTER --out OUT",
    "gap": "IN ADAPTER --out OUT",
    "export": "IN --out OUT",
    "evaluate": "--similarity IN",
}
"""Least arguments of each command: IN is read, OUT written."""

INPUTS = {
    "ingest": "videos",
    "pairs": "videos",
    "embed": "pairs.jsonl",
    "import": "vectors.npy",
    "bank": "queries.txt",
    "export": "adapter",
    **dict.fromkeys(("train", "compare", "calibrate", "gap"), "cache.safetensors"),
}
"""Input of each command that writes and gets as far as that here."""


@pytest.fixture(scope="module")
def workplace(tiny_clip, tmp_path_factory):
    """A folder with an input for each command."""
    folder = tmp_path_factory.mktemp("workplace")
    space = EmbeddingSpace.of(load_encoder(tiny_clip))
    Artifact(AffineAdapter(AffineConfig(width=WIDTH)).eval(), space).save(folder / "adapter")
    (folder / "tiny-clip").symlink_to(tiny_clip)
    vectors = np.random.default_rng(0).normal(size=(120, WIDTH)).astype(np.float32)
    Pairs(vectors, vectors, np.arange(len(vectors)), space).save(folder / "cache.safetensors")
    np.save(folder / "vectors.npy", vectors)
    (folder / "queries.txt").write_text("".join(f"a dog {n}\n" for n in range(12)))
    (folder / "videos").mkdir()
    write_clip(folder / "videos" / "clip.mp4", 0, seconds=1)
    (folder / "videos" / "clip.txt").write_text("a dog")
    (folder / "pairs.jsonl").write_text(json.dumps({"video": "videos/clip.mp4", "text": "a dog"}))
    return folder


@pytest.fixture
def run(workplace, tmp_path, monkeypatch, capsys):
    """Run a command with something in the place of IN and OUT; return exit code, stdout and what stderr says."""
    monkeypatch.chdir(tmp_path)

    def run(command, given=None, out="out", more=""):
        source = str(workplace / INPUTS.get(command, "adapter")) if given is None else given
        filled = {"IN": source, "OUT": out, "CLIP": str(workplace / "tiny-clip")}
        filled["ADAPTER"] = str(workplace / "adapter")
        code = main([command, *(filled.get(word, word) for word in LINES[command].split()), *more.split()])
        printed = capsys.readouterr()
        said = [line for line in printed.err.splitlines() if line.startswith("dits-adapter")]
        assert "Traceback" not in printed.err
        return code, printed.out, said

    return run


def without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def on_a_full_disk():
    return open("/dev/full", "w", encoding="utf-8")


def test_the_matrix_has_every_command():
    from dits_adapter.cli import _parser

    commands = next(a.choices for a in _parser()._actions if a.dest == "command")
    assert LINES.keys() == commands.keys()


@pytest.mark.parametrize(
    "given", ["nowhere", "empty", "folder", "file/inside", "n" * 300, "dög\udce9.jsonl", "tab\t\x1b[31m"]
)
@pytest.mark.parametrize("command", LINES)
def test_what_is_read_is_not_there_or_something_else(run, tmp_path, command, given):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "empty").touch()
    # An absolute path: others with one slash are looked up on the hub.
    code, _, said = run(command, str(tmp_path / given) if "/" in given else given)
    if command == "ingest" and given in ("folder", "empty"):
        assert code == {"folder": 0, "empty": 3}[given]  # no videos, and a video that cannot be read
        return
    assert code == 1
    assert len(said) == 1
    assert "unexpected" not in said[0]
    assert said[0].isprintable()


@pytest.mark.parametrize("out", ["/proc/self/nowhere/out", "file/out", "n" * 300])
@pytest.mark.parametrize("command", INPUTS)
def test_what_is_written_cannot_be_made(run, tmp_path, command, out):
    (tmp_path / "file").touch()
    code, _, said = run(command, out=out)
    assert code == 1
    assert "unexpected" not in said[-1]
    assert out.split("/")[-1] in said[-1] or out.split("/")[0] in said[-1]


def test_a_place_that_may_not_be_written_is_refused_before_pairs_are_read(run, tmp_path):
    (tmp_path / "file").touch()
    code, _, said = run("compare", str(tmp_path / "nowhere"), "file/out")
    assert code == 1
    assert "file/out: cannot be written" in said[-1]


@pytest.mark.parametrize("command", sorted(INPUTS.keys() - {"ingest", "gap", "export"}))
def test_the_disk_is_full(run, monkeypatch, command):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, said = run(command)
    assert (code, said[-1]) == (1, "dits-adapter: the disk is full.")


@pytest.mark.parametrize("command", LINES)
def test_the_working_directory_is_gone(run, tmp_path, monkeypatch, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert run(command) == (1, "", ["dits-adapter: the working directory was deleted; change to another one."])
    finally:
        os.chdir(tmp_path)


@pytest.mark.parametrize(
    ("broken", "code", "message"),
    [
        (without_reader, 141, ""),
        (on_a_full_disk, 1, "dits-adapter: the output cannot be written: the disk is full.\n"),
    ],
)
@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in LINES), ["--version"]])
def test_the_output_cannot_be_written(monkeypatch, capsys, arguments, broken, code, message):
    with broken() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(arguments) == code
        assert capsys.readouterr().err == message
        monkeypatch.undo()


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in LINES)])
def test_help_in_any_charset(monkeypatch, arguments, charset):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=charset))
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert written.getvalue().startswith(b"usage: dits-adapter")
    monkeypatch.undo()


def test_exit_codes_and_version_are_told(capsys):
    for argument in ("--help", "--version"):
        with pytest.raises(SystemExit):
            main([argument])
    printed = capsys.readouterr().out
    assert all(f"  {code:<5} {meaning}\n" in printed for code, meaning in EXIT_CODES.items())
    assert printed.endswith("dits-adapter 0.1.0\n")


class Recipe(BaseModel):
    epochs: int


def invalid():
    Recipe(epochs="many")


def fail(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (fail(StoreError("the store is\naway \x1b[31m")), r"the store is\naway \x1b[31m"),
        (fail(OSError(errno.EROFS, "", "a\nb")), r"a\nb: the file system is read-only."),
        (
            fail(OSError(errno.EXDEV, "Other device", "a", None, "b")),
            "a → b: Other device.",
        ),
        (fail(TimeoutError("the read timed out")), "the read timed out."),
        (fail(MemoryError()), "the memory does not suffice. Give it less at once."),
        (fail(RecursionError()), "an input is nested too deeply to be read."),
        (fail(RuntimeError("I/O error: No space left on device (os error 28)")), "the disk is full."),
        (fail(ModuleNotFoundError(name="matplotlib")), 'name needs the package "matplotlib"'),
        (
            fail(KeyError("x")),
            "unexpected KeyError: 'x'. This is a mistake in the program, not in your command;",
        ),
        (invalid, "unexpected ValidationError: epochs is 'many'; it has to be a whole number. This is"),
    ],
)
def test_errors_are_one_sentence(run, sentence, capsys):
    assert guard("name", run) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"name: {sentence}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("way", ["before", "after", "environment"])
def test_the_traceback_is_a_matter_of_debugging(way, monkeypatch, capsys):
    debug = {"before": (["--debug"], []), "after": ([], ["--debug"]), "environment": ([], [])}[way]
    monkeypatch.setenv("DITS_ADAPTER_DEBUG", str(int(way == "environment")))
    assert main([*debug[0], "evaluate", "--similarity", "nowhere.npy", *debug[1]]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert "dits-adapter: nowhere.npy: cannot be read (No such file or directory)" in printed


@pytest.mark.parametrize(("command", "after"), [("train", " The same command goes on from there."), ("gap", "")])
def test_an_interruption_says_what_becomes_of_the_work(command, after, workplace, monkeypatch, capsys):
    from dits_adapter import cli

    monkeypatch.setattr(cli, "_execute", lambda args: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main([command, *LINES[command].split()]) == 130
    assert capsys.readouterr().err == f"dits-adapter: stopped.{after}\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_bad_lines_are_listed_in_one_line(run, workplace, tmp_path):
    (tmp_path / "pairs.txt").write_text("video,text\nclip.mp4,a dog\n")
    code, _, said = run("embed", "pairs.txt")
    assert (code, len(said)) == (1, 1)
    assert "ends in .csv. line 1: is not JSON (Expecting value, column 1); line 2: is not JSON" in said[0]


def test_weights_of_another_user(run, workplace, monkeypatch):
    def closed(*_, **__):
        raise FileNotFoundError("No such file or directory: model.safetensors")  # as safetensors says it

    monkeypatch.setattr("transformers.CLIPModel.from_pretrained", closed)
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("model.safetensors"))
    code, _, said = run("embed")
    assert code == 1
    assert said[0].endswith("tiny-clip/model.safetensors: permission is denied.")


def test_a_device_that_is_not_there(run, workplace, capsys):
    for device in ("cuda:77", "nonsense", "meta"):
        assert main(["train", str(workplace / "nowhere"), "--out", "out", "--device", device]) == 1
        assert f"the device '{device}' cannot be used here; auto, cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "module", "needed"),
    [
        ("train CACHE --out OUT --curve c.png", "matplotlib", "dits-adapter[figures]"),
        ("train CACHE --out OUT --log-dir logs", "tensorboard", "dits-adapter[tensorboard]"),
        ("train CACHE --out OUT", "sklearn", "dits-adapter[training]"),
        ("train-joint IN --encoder X --out OUT --log-dir logs", "tensorboard", "dits-adapter[tensorboard]"),
        ("compare CACHE", "scipy", "dits-adapter[training]"),
        ("calibrate CACHE X --out OUT --plot c.png", "matplotlib", "dits-adapter[figures]"),
        ("gap CACHE X", "matplotlib", "dits-adapter[figures]"),
        ("export X --out OUT", "onnxscript", "dits-adapter[export]"),
        ("serve", "uvicorn", "dits-adapter[serve]"),
    ],
)
def test_a_missing_package_is_said_before_anything_is_read(line, module, needed, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(line.split()) == 1
    assert needed in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_is_refused_first(tmp_path, capsys):
    assert main(["train", "nowhere", "--out", str(tmp_path / "out"), "--curve", str(tmp_path / "c.txt")]) == 1
    assert "c.txt: no kind of picture; name it FILE.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "training.epoch=3",
            "there is no field training.epoch; did you mean training.epochs? Fields of training are epochs,",
        ),
        ("epochs=3", "there is no field epochs; did you mean training.epochs?"),
        ("sampler.stepz=3", "there is no field sampler.stepz; did you mean sampler.steps?"),
        ("steps=3", "there is no field steps; did you mean sampler.steps?"),
        ("training.epochs=0", "training.epochs is 0; it has to be at least 1."),
        ("training.learning_rate=-1", "training.learning_rate[0] is -1; it has to be above 0.0."),
        ("sampler.steps=30", "steps T'=30 exceeds timesteps T=10."),
        ("training.precision=half", "training.precision is 'half'; it has to be 'auto', 'float32' or 'bfloat16'."),
        ("training=3", "training is 3, not fields: training.NAME."),
        ("adapter.depth=3", "adapter is {'depth': 3}; it has to be a text."),
        ("training.epochs=[", "training.epochs=[, line 1: is not YAML"),
    ],
)
def test_settings_are_refused_in_words(setting, sentence, tmp_path, capsys):
    (tmp_path / "pairs").touch()
    assert main(["train", str(tmp_path / "pairs"), "--out", str(tmp_path / "out"), "--set", setting]) == 1
    printed = capsys.readouterr().err
    assert sentence in printed
    assert "pydantic" not in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"training:\n  epoch: 3\n", "did you mean training.epochs?"),
        (b"- a\n- b\n", "expected any of the keys adapter, options, sampler, training"),
        (b"training: {epochs: 2", "is not YAML"),
    ],
)
def test_recipe_files_are_refused_in_words(content, sentence, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_bytes(content)
    (tmp_path / "pairs").touch()
    line = ["train", str(tmp_path / "pairs"), "--out", str(tmp_path / "out")]
    assert main([*line, "--config", str(tmp_path / "recipe.yaml")]) == 1
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.startswith(f"dits-adapter: {tmp_path / 'recipe.yaml'}")
    assert printed.count("\n") == 1


def test_options_of_a_collection_are_refused_in_words(run, workplace, capsys):
    line = ["ingest", str(workplace / "videos"), "--encoder", str(workplace / "tiny-clip"), "--store", "out"]
    for option, sentence in (
        ("quantisation=scalar", "there is no field --option quantisation; did you mean --option quantization?"),
        ("shards=0", "--option shards is '0'; it has to be at least 1."),
    ):
        assert main([*line, "--option", option]) == 1
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "more", "sentence"),
    [
        ("embed", "--frames 99999999999999999999", "frames is 99999999999999999999; it has to be at most"),
        ("embed", "--patience 3", "--patience is for vectors of a collection; name its --store"),
        ("compare", "--steps 99999999999999999999", "timesteps is 99999999999999999999; it has to be at most"),
        ("compare", "--rows dits-bst", "there is no row 'dits-bst'; did you mean dits-best?"),
        ("gap", "--queries 0", "queries is 0; expected at least 1"),
        ("recall", "--limit 0", "limit is 0; expected at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused_in_words(run, workplace, monkeypatch, command, more, sentence):
    monkeypatch.setattr("dits_adapter.cli._recall.qdrant_store", lambda *_: MagicMock())
    code, _, said = run(command, str(workplace / "queries.txt") if command == "recall" else None, more=more)
    assert code == 1
    assert sentence in said[-1]


def test_in_a_process_of_its_own(tmp_path):
    """Through a pipe whose reader has left, with closed streams, with OpenMP's threads, and with a warning."""
    script = f"{sys.executable} -m dits_adapter.cli"
    environment = {**os.environ, "OMP_NUM_THREADS": "2,1", "PYTHONIOENCODING": "ascii"}

    def shell(line, stdout=subprocess.PIPE):
        command = ["bash", "-c", line]
        return subprocess.run(command, cwd=tmp_path, env=environment, stdout=stdout, stderr=subprocess.PIPE)

    reader, pipe = os.pipe()
    os.close(reader)
    left = shell(f"{script} ingest --help", stdout=pipe)
    os.close(pipe)
    assert (left.returncode, left.stderr) == (141, b"")
    closed = shell(f"{script} evaluate --similarity nowhere >&- 2>&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (1, b"", b"")
    warning = "import warnings; from dits_adapter.cli._entry import guard; "
    warning += "guard('name', lambda: warnings.warn('two\\nlines \\x07 ö') or 0)"
    warned = subprocess.run([sys.executable, "-c", warning], env=environment, capture_output=True)
    assert (warned.returncode, warned.stderr) == (0, b"name: warning: two lines \\x07 \\xf6\n")


def test_work_of_one_process_is_not_done_by_several(monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["compare", "cache"]) == 1
    assert "2 processes were started, and compare is the work of one" in capsys.readouterr().err
