"""The public surface: one declared list, importable, documented, and equal to its page."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dits_adapter
from dits_adapter.cli import _parser

PACKAGE = Path(dits_adapter.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "public-surface.md"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def tree(module: str) -> ast.Module:
    path = PACKAGE.parent / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def declared(module: str) -> set[str]:
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{module} declares no __all__")


def defined(module: str) -> set[str]:
    """Names that a module defines itself; type variables are nobody's business."""
    names: set[str] = set()
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and "TypeVar" not in ast.dump(node.value):
            names |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def taken_from_private_neighbors(module: str) -> set[str]:
    """Names that a module makes public, or shares, out of a module that is private to its package."""
    return {
        alias.name
        for node in tree(module).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1].startswith("_")
        for alias in node.names
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_declares_what_others_may_use_and_hides_the_rest(module: str) -> None:
    visible = {name for name in defined(module) if not name.startswith("_")}
    assert visible - declared(module) == set()
    assert declared(module) - visible - taken_from_private_neighbors(module) == set()


def test_every_public_name_is_importable_and_documented() -> None:
    for name in dits_adapter.__all__:
        value = getattr(dits_adapter, name)
        if name == "__version__":
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), name
            assert value.__module__.startswith("dits_adapter."), name


def test_public_names_live_in_public_modules() -> None:
    for name, home in dits_adapter._HOMES.items():
        assert name in declared(home), f"{home} does not declare {name}"
        assert not any(part.startswith("_") for part in home.split(".")), home


def test_a_public_module_has_a_public_name() -> None:
    homes = set(dits_adapter._HOMES.values())
    for module in MODULES:
        internal = any(part.startswith("_") for part in module.split("."))
        package = module.split(".")[1]
        if not internal and package not in ("cli", "integrations") and module.rpartition(".")[0] not in homes:
            assert module in homes, f"{module} has no public name: call it _{module.split('.')[-1]}"


def test_the_page_lists_exactly_the_public_names() -> None:
    text = PAGE.read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(dits_adapter.__all__) - {"__version__"})


def test_importing_the_package_loads_nothing_of_weight() -> None:
    code = (
        "import sys, dits_adapter; dir(dits_adapter); "
        "print([m for m in ('torch', 'numpy', 'qdrant_client', 'av', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_help_of_a_command_loads_nothing_of_weight() -> None:
    code = (
        "import atexit, sys; from dits_adapter.cli import main; "
        "modules = ('torch', 'numpy', 'qdrant_client', 'av', 'pydantic', 'transformers', 'shtab'); "
        "atexit.register(lambda: print([m for m in modules if m in sys.modules])); main(['search', '--help'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("\n[]\n")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("dits_adapter").nothing  # noqa: B018


def test_the_page_on_python_has_a_function_for_every_command() -> None:
    page = (PAGE.parent / "python.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page, re.MULTILINE))
    assert set(rows) == set(_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]
    for command, functions in rows.items():
        for name in re.findall(r"`([\w.]+)`", functions):
            if not name.startswith("dits_adapter."):
                assert name.partition(".")[0] in dits_adapter.__all__, f"{command}: {name} is not public"
                name = f"dits_adapter.{name}"
            assert callable(pkgutil.resolve_name(name)), f"{command}: {name}"


def test_type_checkers_know_the_same_names() -> None:
    known = {
        alias.asname: node.module
        for block in tree("dits_adapter").body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert known == dits_adapter._HOMES
