"""Repositories of the hub in their real layouts, with tiny random weights of the real classes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

__all__ = ["clip_files", "folder_files", "hub_repositories", "pickled", "with_code"]


class _Trap:
    """Object whose unpickling writes a file: weights that run code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.marker, "ran")


def pickled(marker: Path) -> bytes:
    """Return pickled weights that write `marker` when they are loaded."""
    return pickle.dumps(_Trap(marker))


def folder_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their names inside it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def clip_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a saved CLIP as OpenAI's repositories have them, without weights of other formats."""
    files = folder_files(folder)
    tokenizer = json.loads(files["tokenizer.json"])["model"]
    files["vocab.json"] = json.dumps(tokenizer["vocab"]).encode()
    files["merges.txt"] = b"#version: 0.2\n"
    files["special_tokens_map.json"] = json.dumps({"pad_token": "<|endoftext|>"}).encode()
    return {**files, "README.md": b"# CLIP", ".gitattributes": b"*.bin filter=lfs\n"}


def hub_repositories(folder: Path, marker: Path) -> dict[str, dict[str, bytes]]:
    """Return the repositories by hub id, of one CLIP; whatever is pickled in them writes `marker` when loaded."""
    files = clip_files(folder)
    weights = files.pop("model.safetensors")
    others = {"pytorch_model.bin": pickled(marker), "tf_model.h5": b"h5", "flax_model.msgpack": b"flax"}
    safe = {**files, **others, "model.safetensors": weights}
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    nested = {
        f"0_CLIPModel/{name}": content
        for name, content in safe.items()
        if name not in ("README.md", ".gitattributes")
    }
    return {
        "openai/clip-vit-base-patch32": {**files, **others},
        "openai/clip-vit-large-patch14": safe,
        "sentence-transformers/clip-ViT-B-32": {
            **nested,
            "modules.json": json.dumps(modules).encode(),
            "config_sentence_transformers.json": b"{}",
            "README.md": b"# CLIP",
        },
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": {
            **safe,
            "open_clip_config.json": b"{}",
            "open_clip_pytorch_model.bin": pickled(marker),
            "open_clip_model.safetensors": weights,
        },
    }


def with_code(files: dict[str, bytes], marker: Path, **config: object) -> dict[str, bytes]:
    """Return a repository whose config names classes of its own, in a file that writes `marker` when it is run."""
    classes = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
    code = {"auto_map": {name: f"theirs.{name}" for name in classes}}
    changed = dict(files)
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        content = {**json.loads(files[name]), **code, **(config if name == "config.json" else {})}
        if name == "tokenizer_config.json":
            content["auto_map"] = {"AutoTokenizer": ["theirs.AutoTokenizer", "theirs.AutoTokenizer"]}
        changed[name] = json.dumps(content).encode()
    changed["theirs.py"] = f"import pathlib\npathlib.Path({str(marker)!r}).write_text('ran')\n".encode()
    return changed
