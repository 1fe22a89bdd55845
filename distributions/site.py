"""Hooks of the documentation site (mkdocs.yml): the generated reference, and pages from outside of docs/.

- The reference of public names has a page for each section of docs/public-surface.md, that of commands a page for
  each command of the parser, that of settings a page with the fields of recipes and adapters.
- READMEs and other pages of the repository come in under the names of `PAGES`. Links between pages lead to the
  pages' places on the site; those to files that are not on it become plain text.
- Pages of docs/ that the navigation of mkdocs.yml does not name are put under "How to".
- The build fails where a page or a stylesheet loads anything from another server.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[1]))  # mkdocs runs this file by its path
from distributions.notebook import notebook_markdown

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "docs/tour.ipynb": "tour.md",
    **{
        str(path.relative_to(ROOT)): f"integrations/{'-'.join(path.relative_to(ROOT).parts[1:-1])}.md"
        for path in sorted((ROOT / "integrations").rglob("README.md"))
    },
}
"""Place on the site of each page of the repository outside of docs/."""

LINK = re.compile(r"(!?\[[^\]]*\])\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation."""
    sections = {title: items for section in config.nav or [] for title, items in section.items()}
    named = {place for items in sections.values() for place in _places(items)}
    pages = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    sections["How to"] += [name for name in pages if name not in named]
    sections["Integrations"] += [place for place in PAGES.values() if place.startswith("integrations/")]
    generated = _reference()
    for title in ("Python", "Commands"):
        sections["Reference"].append({title: [place for place in generated if f"/{title.lower()}/" in place]})
    sections["Reference"].append({"Settings": "reference/settings.md"})
    return config


def _places(items: Any) -> Iterator[str]:
    if isinstance(items, str):
        yield items
        return
    for item in items:
        yield from _places(next(iter(item.values())) if isinstance(item, dict) else item)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=_content(ROOT / source)))
    for place, content in _reference().items():
        files.append(File.generated(config, place, content=content))
    return files


def _content(path: Path) -> str:
    return notebook_markdown(path) if path.suffix == ".ipynb" else path.read_text("utf-8")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their targets lie on the site."""
    sources = {place: source for source, place in PAGES.items()}
    place = page.file.src_uri
    source = sources.get(place, f"docs/{place}")

    def lead(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        there = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(there) is None and (ROOT / path).exists():
            return text.strip("![]")  # of what does not exist mkdocs warns
        return f"{text}({os.path.relpath(there, os.path.dirname(place) or '.')}{anchor})"

    if place.startswith("reference/"):
        return markdown
    markdown = LINK.sub(lead, markdown)
    if place == "python.md":  # its rows begin with commands
        markdown = re.sub(
            r"^\| (`([a-z-]+)`) \|", r"| [\1](reference/commands/\2.md) |", markdown, flags=re.MULTILINE
        )
    return _linked(markdown) if place in ("public-surface.md", "python.md") else markdown


def _linked(markdown: str) -> str:
    """Lead public names in code to their places in the reference."""
    from dits_adapter import _HOMES

    def lead(match: re.Match[str]) -> str:
        home = _HOMES.get(match[1])
        return f"[{match[0]}][{home}.{match[1]}]" if home else match[0]

    return re.sub(r"(?<!\[)`(\w+)(?:\.\w+)?`", lead, markdown)


LOADS = re.compile(r"<(?:script|link|img|iframe|source|video|audio|track|object|embed)\b[^>]*>")
ADDRESS = re.compile(r"""(?:\b(?:src|href|srcset|poster|data)=|url\(|@import )["']?((?:https?:)?//[^"'\s)>]+)""")


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from another server.

    Raises:
        PluginError: it does; the message has a line for each page or stylesheet and address.
    """
    lines = []
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            text = path.read_text("utf-8")
            styles = re.findall(r"<style\b.*?</style>", text, re.DOTALL) if path.suffix == ".html" else [text]
            loading = styles + (LOADS.findall(text) if path.suffix == ".html" else [])
            addresses = sorted({address for part in loading for address in ADDRESS.findall(part)})
            lines += [f"{path.relative_to(config.site_dir)}: {address}" for address in addresses]
    if lines:
        raise PluginError("\n".join(["The site loads from other servers, and must not:", *lines]))


_GENERATED: dict[str, str] = {}


def _reference() -> dict[str, str]:
    """Return the generated pages by their places, made once."""
    if not _GENERATED:
        _GENERATED.update(_names())
        _GENERATED.update(_commands())
        _GENERATED.update(_settings())
    return _GENERATED


def _names() -> Iterator[tuple[str, str]]:
    """Yield a page for each section of public names."""
    from dits_adapter import _HOMES

    text = (ROOT / "docs" / "public-surface.md").read_text("utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0].strip()
        names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        modules = re.findall(r"^\| `(dits_adapter\.[\w.]+)` \|[^|]*\| (.*) \|$", section, re.MULTILINE)
        paths = [f"{_HOMES[name]}.{name}" for name in names]
        paths += [f"{module}.{name}" for module, listed in modules for name in re.findall(r"`(\w+)`", listed)]
        intro = "Import each from its module." if modules else "Import each from `dits_adapter`."
        blocks = "\n\n".join(f"::: {path}" for path in paths)
        slug = re.sub(r"\W+", "-", title.lower()).strip("-")
        yield f"reference/python/{slug}.md", f"# {title}\n\n{intro}\n\n{blocks}\n"


def _commands() -> Iterator[tuple[str, str]]:
    """Yield the overview of the commands, and a page for each."""
    from dits_adapter.cli import EXIT_CODES, _parser

    action = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    lines = [f"| [`dits-adapter {name}`]({name}.md) | {_cell(helps[name])} |" for name in action.choices]
    codes = [f"| {code} | {_cell(meaning)} |" for code, meaning in EXIT_CODES.items()]
    overview = ["# Commands", "", "| command | what it does |", "|---|---|", *lines, "", "## Exit codes", ""]
    overview += ["| code | meaning |", "|---|---|", *codes, ""]
    yield "reference/commands/index.md", "\n".join(overview)
    for name, parser in action.choices.items():
        yield f"reference/commands/{name}.md", _command(name, parser)


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=110)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    usage = re.sub(r"\n {8,}", "\n    ", formatter.format_help().rstrip())
    rows = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        shown = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
        names = [f"{option} {shown}".strip() for option in action.option_strings] or [shown]
        meaning = _cell(formatter._expand_help(action)) if action.help else ""
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {meaning} |")
    table = ["| argument | meaning |", "|---|---|", *rows] if rows else []
    page = [f"# dits-adapter {name}", "", _prose(parser.description), "", "```text", usage, "```", "", *table, ""]
    _, _, examples = (parser.epilog or "").partition("examples:\n")
    if examples:
        page += ["## Examples", "", "```sh", textwrap.dedent(examples), "```", ""]
    return "\n".join(page)


def _prose(text: str | None) -> str:
    return " ".join((text or "").split()).replace("<", "&lt;")


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _settings() -> Iterator[tuple[str, str]]:
    """Yield the page of the fields that `--set`, a YAML file or Python can give."""
    from dits_adapter.adapters import adapter_entries
    from dits_adapter.training.config import JOINT_PRESETS, PRESETS, JointRecipe, Recipe, TrainingConfig

    parts = [
        "# Settings",
        "`dits-adapter train --set training.epochs=10`, `--config FILE.yaml` with the same names as a tree, or "
        "fields of the class in Python. A preset is a set of values to start from.",
        _fields("Training on cached vectors: `train`", Recipe),
        _fields("Its optimization: `training.…`", TrainingConfig),
        _presets("Presets of `train --preset`", PRESETS),
        _fields("Joint training: `train-joint`", JointRecipe),
        _presets("Presets of `train-joint --preset`", JOINT_PRESETS),
    ]
    configs: dict[type[BaseModel], list[str]] = {}
    for entry in adapter_entries():
        configs.setdefault(entry.adapter.Config, []).append(entry.name)
    for config, names in configs.items():
        where = "sampler.…" if config.__name__ == "SamplerConfig" else "options.…"
        parts.append(
            _fields(f"`{config.__name__}`: `{where}`", config, f"Of {', '.join(f'`{n}`' for n in names)}.")
        )
    yield "reference/settings.md", "\n\n".join(parts) + "\n"


def _fields(title: str, model: type[BaseModel], remark: str = "") -> str:
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__[:-1]):
        doc = base.__dict__.get("__doc__") or ""
        for section in Docstring(inspect.cleandoc(doc)).parse("google", warnings=False):
            if section.kind is DocstringSectionKind.attributes:
                for attribute in section.value:
                    meanings.update(dict.fromkeys(re.split(r",\s*", attribute.name), attribute.description))
    schema = model.model_json_schema()
    rows = [
        f"| `{name}` | {_accepted(field, schema)} | {_default(field)} | {_cell(meanings.get(name, ''))} |"
        for name, field in schema["properties"].items()
    ]
    head = ["| field | value | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {title}", "", *([remark, ""] if remark else []), *head, *rows])


def _accepted(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Describe the values of a field of a JSON schema."""
    if "anyOf" in field:
        return " or ".join(_accepted(option, schema) for option in field["anyOf"])
    if "$ref" in field:
        return "fields of their own"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of: {_accepted(field.get('items', {}), schema)}"
    words = {"integer": "whole number", "number": "number", "string": "text", "object": "fields", "null": "none"}
    words["boolean"] = "true or false"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{word} {field[key]:g}" for key, word in bounds.items() if key in field]
    return ", ".join([words.get(field.get("type", ""), "value"), *limits])


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return "" if field.get("type") != "object" else "none"
    value = field["default"]
    if isinstance(value, dict):
        return "those below" if value else "none"
    return "none" if value is None else f"`{_cell(str(value))}`"


def _presets(title: str, presets: Any) -> str:
    rows = []
    for name, preset in presets.items():
        changed = preset.model_dump(exclude_defaults=True)
        values = ", ".join(f"`{key}={value}`" for key, value in _flat(changed))
        rows.append(f"| `{name}` | {_cell(values) or 'the defaults'} |")
    return "\n".join([f"## {title}", "", "| preset | what differs from the defaults |", "|---|---|", *rows])


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
