"""Words for users: text from outside made safe to print, and pydantic's errors as sentences.

`printable(text)` escapes what a terminal would obey instead of show.
`counted(number, one, many)` puts a number before the noun that goes with it.
`without_password(address)` leaves out secrets.
`no_such_vector(collection, vector, names)` says which vectors there are instead.
`no_cosines(collection)` says why hits of a collection have no probabilities.
`failed_files(failed, known)` lists the files that a run could not read.
`validated(model, fields)` builds a pydantic model, and `complaints(error, names)` words the error of one that was
built elsewhere.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "complaints",
    "counted",
    "failed_files",
    "field_names",
    "no_cosines",
    "no_such_vector",
    "printable",
    "validated",
    "without_password",
]

_M = TypeVar("_M")

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, invisible formatting, halves of surrogate pairs and line breaks."""

_JOINERS = "\u200c\u200d"
"""Formatting characters that ordinary names have: emoji, Persian, Hindi."""

_MOST_COMPLAINTS, _LONGEST_VALUE = 3, 60

_WANTED = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "too_short": "of at least {min_length} values",
    "too_long": "of at most {max_length} values",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a group of named fields",
    "model": "a group of named fields",
    "dataclass": "a group of named fields",
}
"""Predicates by pydantic's type of error, or by that type up to its first underscore."""


def printable(text: object) -> str:
    r"""Escape control characters, line breaks and halves of surrogate pairs, which names and messages may hold.

    Examples:
        >>> print(printable("a\x1b[2Jb\nc"))
        a\x1b[2Jb\nc
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _ESCAPED and character not in _JOINERS
        else character
        for character in shown
    )


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number and the words that go with it.

    Args:
        number: the number.
        one: words after 1.
        many: words after any other number; without them those after 1 and an s.

    Examples:
        >>> counted(1, "video"), counted(2000, "video"), counted(0, "query is", "queries are")
        ('1 video', '2,000 videos', '0 queries are')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def failed_files(failed: Mapping[str, str], known: int) -> list[str]:
    """Return the lines of a report about files that could not be read; none where there are no such files.

    Args:
        failed: reasons by file.
        known: number of these files that failed in an earlier run and were not tried again.
    """
    if not failed:
        return []
    again = f", {known:,} of them in an earlier run and not tried again without --retry-failed" if known else ""
    files = (f"  {printable(path)}: {printable(reason)}" for path, reason in failed.items())
    return [f"failed   {len(failed):,}{again}", *files]


def no_cosines(collection: str) -> str:
    """Return the message that hits of a collection have no probabilities, for its scores are no cosines."""
    return (
        f"the scores of the collection {collection!r} are no cosines: it is compared by a distance, or by dot "
        "products of vectors that are not of unit length. Hits are ranked by these, and their probabilities are "
        "not known."
    )


def no_such_vector(collection: str, vector: str, names: Iterable[str]) -> str:
    """Return the message that a collection has no such vector; "" is the unnamed one.

    Examples:
        >>> no_such_vector("clips", "", ["image"])
        "the collection 'clips' has no unnamed vector; it has 'image'; --vector names one."
    """
    wanted = f"vector {vector!r}" if vector else "unnamed vector"
    known = ", ".join(repr(name) if name else "an unnamed one (--vector '')" for name in names) or "none"
    return f"the collection {collection!r} has no {wanted}; it has {known}; --vector names one."


def without_password(address: str) -> str:
    """Return the address of a server for messages: without a password, and without keys among its parameters.

    Examples:
        >>> without_password("postgresql://me:secret@host/videos?sslmode=require&password=secret")
        'postgresql://me@host/videos?sslmode=require&password=…'
    """
    shown = re.sub(r"(?i)([?&][^=&]*(?:password|token|key|secret)[^=&]*=)[^&]*", r"\1…", address)
    scheme, mark, rest = shown.partition("://")
    credentials, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{credentials.partition(':')[0]}{at}{place}"


def validated(model: type[_M], fields: object, *, at: str = "", names: Collection[str] | None = None) -> _M:
    """Build a model, or a dataclass, from a mapping of its fields or from JSON.

    Args:
        model: class of the model.
        fields: the mapping, or JSON as text or bytes.
        at: prefix of the fields' names in messages: `"sampler."`.
        names: fields that can be meant; by default those of the model, with those of models inside it.

    Raises:
        InputError: unknown, missing or unacceptable fields, each in a sentence.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(model)
    try:
        return (
            adapter.validate_json(fields) if isinstance(fields, (str, bytes)) else adapter.validate_python(fields)
        )
    except ValidationError as error:
        known = list(field_names(model)) if names is None else names
        raise InputError(complaints(error, known, at=at)) from None


def field_names(model: type[Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a model's fields, and of models inside it: `training.epochs`."""
    for name, field in getattr(model, "model_fields", {}).items():
        yield prefix + name
        if hasattr(field.annotation, "model_fields"):
            yield from field_names(field.annotation, f"{prefix}{name}.")


def complaints(error: ValidationError, names: Collection[str] = (), *, at: str = "") -> str:
    """Word the error of a pydantic model: a sentence for each field, three at most.

    Args:
        error: error of a model, a dataclass or a type adapter.
        names: dotted names of the fields that there are, to find the one that is meant by a wrong one.
        at: see `validated`.
    """
    known = list(names)
    details: list[Any] = []
    for detail in error.errors(include_url=False):
        inner = any(other["loc"][: len(detail["loc"])] == detail["loc"] for other in details)
        if not inner or not detail["loc"]:  # a list whose item was refused is also said to be too short
            details.append(detail)
    sentences = [_sentence(detail, known, at) for detail in details[:_MOST_COMPLAINTS]]
    if more := len(details) - len(sentences):
        sentences.append(f"({more} more.)")
    return " ".join(dict.fromkeys(sentences))


def _sentence(detail: Any, known: list[str], at: str) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    name = at + _dotted(detail["loc"])
    if kind == "extra_forbidden":
        return _unknown(name, [at + field for field in known])
    if kind == "missing":
        return f"{name} is missing."
    if kind == "json_invalid":
        return f"is no valid JSON: {context['error']}."
    if kind == "value_error":  # of a validator of ours, whose message is a sentence
        return f"{str(context['error']).rstrip('.')}."
    wanted = _WANTED.get(kind) or _WANTED.get(kind.partition("_")[0])
    demand = f"has to be {wanted.format(**context)}" if wanted else re.sub("^Input ", "", detail["msg"])
    value = repr(detail["input"])
    shown = value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
    return f"{name or 'the content'} is {shown}; it {demand}."


def _dotted(path: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _unknown(name: str, known: list[str]) -> str:
    section, _, leaf = name.rpartition(".")
    beside = [field.rpartition(".")[2] for field in known if field.rpartition(".")[0] == section]
    by_leaf = {field.rpartition(".")[2]: field for field in reversed(known)}
    near = difflib.get_close_matches(leaf, beside, 1) or difflib.get_close_matches(leaf, by_leaf, 1)
    meant = (
        f"; did you mean {_join(section, near[0]) if near[0] in beside else by_leaf[near[0]]}?" if near else "."
    )
    listed = f" {f'Fields of {section}' if section else 'The fields'} are {', '.join(beside)}." if beside else ""
    return f"there is no field {name}{meant}{listed}"


def _join(section: str, leaf: str) -> str:
    return f"{section}.{leaf}" if section else leaf
