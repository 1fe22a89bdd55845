"""Secrets from the environment, or from files that it names, as container engines give them."""

from __future__ import annotations

import os
from pathlib import Path

from dits_adapter.errors import InputError

__all__ = ["secret"]


def secret(name: str) -> str | None:
    """Return the secret in a variable of the environment, or in the file that the variable `<name>_FILE` names.

    A line break at the end of a file is no part of the secret. An empty variable counts as none.

    Args:
        name: such as "QDRANT_API_KEY".

    Returns:
        None where neither is set.

    Raises:
        InputError: both are set, or the file cannot be read, is no text or is empty; no message has the secret.
    """
    variable = f"{name}_FILE"
    value, path = os.environ.get(name), os.environ.get(variable)
    if not path:
        return value or None
    if value:
        raise InputError(f"{name} and {variable} are both set; leave one of them out.")
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        raise InputError(f"{variable}: {path} cannot be read ({reason}).") from None
    if not (value := text.rstrip("\r\n")):
        raise InputError(f"{variable}: {path} is empty; it holds the secret in one line.")
    return value
