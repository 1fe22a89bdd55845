"""Options of `serve` and `mcp` from the environment, and secrets from files that it names."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dits_adapter import cli
from dits_adapter._secrets import secret
from dits_adapter.cli import main
from dits_adapter.cli._listening import TOKEN, needed_token, printed_token
from dits_adapter.errors import InputError

ROOT = Path(__file__).parents[2]
PREFIXES = {"serve": "DITS_SERVE_", "mcp": "DITS_MCP_"}


@pytest.fixture
def parse(monkeypatch):
    """Function that parses a command line under variables, and runs nothing."""
    for name in os.environ:
        if name.startswith(tuple(PREFIXES.values())):
            monkeypatch.delenv(name)
    parsed = []
    monkeypatch.setattr(cli, "_execute", lambda args: parsed.append(args) or 0)

    def parse(*line, **variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            code = main([*line])
        return parsed.pop() if code == 0 else code

    return parse


def options(command):
    """Return the long option of each variable of a command."""
    commands = next(action.choices for action in cli._parser()._actions if action.dest == "command")
    return {
        PREFIXES[command] + action.dest.upper(): action.option_strings[-1]
        for action in commands[command]._actions
        if action.option_strings and action.dest not in ("help", "quiet", "verbose", "debug")
    }


@pytest.mark.parametrize("command", PREFIXES)
def test_the_help_names_the_variable_of_every_option(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv(f"{PREFIXES[command]}PORT", "many")  # help is not in the way of what is wrong
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert [variable for variable in options(command) if f"[{variable}]" not in printed] == []


def test_the_page_of_operators_lists_them():
    text = (ROOT / "docs" / "operate.md").read_text("utf-8")
    listed = re.findall(r"^\| `(--[\w-]+)` \| (?:`(\w+)` )?\| (?:`(\w+)` )?\|", text, re.MULTILINE)
    known = {option: ["", ""] for command in PREFIXES for option in options(command).values()}
    for place, command in enumerate(PREFIXES):
        for variable, option in options(command).items():
            known[option][place] = variable
    assert {option: list(names) for option, *names in listed} == known


def test_the_command_line_comes_before_the_environment_and_that_before_the_default(parse):
    variables = {"DITS_SERVE_PORT": "9000", "DITS_SERVE_STORE": "there", "DITS_SERVE_PATIENCE": "1.5"}
    args = parse("serve", "--store", "here", "--collection", "c", **variables, DITS_SERVE_FEEDBACK="f.jsonl")
    assert (args.port, args.store, args.patience, args.host) == (9000, "here", 1.5, "127.0.0.1")
    assert args.feedback == Path("f.jsonl")
    assert parse("serve", **variables).store == "there"
    assert parse("serve").port == parse("serve", DITS_SERVE_PORT="").port == 8000
    assert parse("mcp", **variables).port == 8000  # each command has variables of its own


@pytest.mark.parametrize(("text", "on"), [("1", True), ("True", True), ("0", False), ("off", False), ("", False)])
def test_a_flag_is_one_or_zero(parse, text, on):
    assert parse("mcp", DITS_MCP_HTTP=text).http is on
    assert parse("mcp", "--http", DITS_MCP_HTTP=text).http is True


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"DITS_SERVE_PORT": "http"}, "DITS_SERVE_PORT: 'http' is no whole number."),
        ({"DITS_SERVE_PATIENCE": "long"}, "DITS_SERVE_PATIENCE: 'long' is no number."),
        ({"DITS_SERVE_LOG_FORMAT": "xml"}, "DITS_SERVE_LOG_FORMAT: 'xml' is none of text, json."),
        ({"DITS_SERVE_NO_BROWSER": "2"}, "DITS_SERVE_NO_BROWSER is '2'; it is 1 or 0, for --no-browser or none."),
        (
            {"DITS_SERVE_PROT": "80"},
            "DITS_SERVE_PROT in the environment is of no option; did you mean DITS_SERVE_P",
        ),
        (
            {"DITS_SERVE_X": "80"},
            "DITS_SERVE_X in the environment is of no option; there are DITS_SERVE_STORE, ",
        ),
    ],
)
def test_what_a_variable_cannot_be_is_said(parse, variables, sentence, capsys):
    assert parse("serve", **variables) == 1
    assert capsys.readouterr().err.startswith(f"dits-adapter: {sentence}")


def test_an_error_of_an_option_names_the_variable_that_it_came_from(monkeypatch, capsys):
    monkeypatch.setenv("DITS_SERVE_PORT", "99999")
    assert main(["serve"]) == 1
    assert "--port is 99999; ports" in (printed := capsys.readouterr().err)
    assert printed.endswith("(--port comes from DITS_SERVE_PORT.)\n")
    assert main(["serve", "--port", "99998"]) == 1
    assert "DITS_SERVE_PORT" not in capsys.readouterr().err
    monkeypatch.setenv("DITS_MCP_HOST", "0.0.0.0")
    assert main(["mcp"]) == 1
    assert capsys.readouterr().err.endswith("(--host comes from DITS_MCP_HOST.)\n")


class TestSecrets:
    def test_of_a_variable_or_of_the_file_that_one_names(self, monkeypatch, tmp_path):
        monkeypatch.delenv("A_KEY", raising=False)
        assert secret("A_KEY") is None
        (tmp_path / "key").write_text("open sesame\r\n")
        monkeypatch.setenv("A_KEY_FILE", str(tmp_path / "key"))
        assert secret("A_KEY") == "open sesame"
        monkeypatch.setenv("A_KEY_FILE", "")
        monkeypatch.setenv("A_KEY", "knock")
        assert secret("A_KEY") == "knock"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [(None, "(No such file or directory)"), (b"\n", "is empty"), (b"\xff\xfe", "is no text in UTF-8")],
    )
    def test_what_no_file_of_a_secret_is(self, monkeypatch, tmp_path, content, reason):
        if content is not None:
            (tmp_path / "key").write_bytes(content)
        monkeypatch.setenv("A_KEY_FILE", str(tmp_path / "key"))
        with pytest.raises(InputError, match=f"^A_KEY_FILE: .*{re.escape(reason)}"):
            secret("A_KEY")
        monkeypatch.setenv("A_KEY", "knock")
        with pytest.raises(InputError, match="A_KEY and A_KEY_FILE are both set") as raised:
            secret("A_KEY")
        assert "knock" not in str(raised.value)

    def test_the_token_of_a_server(self, monkeypatch, tmp_path):
        """One of a file is used, and no more printed than one of the environment."""

        class Listener:
            def getsockname(self):
                return ("127.0.0.1", 80)

        monkeypatch.delenv(TOKEN, raising=False)
        assert needed_token(Listener()) is None
        assert printed_token("fresh") == "fresh"
        (tmp_path / "token").write_text("open-sesame\n")
        monkeypatch.setenv(f"{TOKEN}_FILE", str(tmp_path / "token"))
        assert needed_token(Listener()) == "open-sesame"
        assert printed_token("open-sesame") is None
