"""Progress of long work: bars on a terminal alone, lines in the log elsewhere."""

from __future__ import annotations

import io
import logging
import sys
import time

from dits_adapter._progress import progress_bar, without_bars


def terminal(monkeypatch):
    """Put a terminal in the place of stderr; not in a fixture, after which pytest puts its own there."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def work(**options):
    return list(progress_bar(range(3), desc="work", **options))


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = terminal(monkeypatch)
    assert work() == [0, 1, 2]
    assert "3/3" in screen.getvalue()


def test_neither_a_silent_caller_nor_a_silent_command_gets_one(monkeypatch, caplog):
    screen = terminal(monkeypatch)
    caplog.set_level(logging.INFO)
    assert work(progress=False) == [0, 1, 2]
    with without_bars():
        assert work() == [0, 1, 2]
    assert screen.getvalue() == ""
    assert not caplog.records


def test_a_file_gets_nothing(caplog, capsys):
    assert work() == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert not caplog.records


def test_the_log_gets_the_first_line_one_a_minute_and_the_last(caplog, capsys, monkeypatch):
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress_bar(total=10, desc="videos") as bar:
        for number in range(10):
            clock[0] += 10.0
            bar.set_postfix_str(f"film {number}")
            bar.update()
            bar.refresh()
    assert capsys.readouterr().err == ""
    lines = [record.getMessage().split(" [")[0] for record in caplog.records]
    assert lines == ["videos: 0 of 10", "videos: 5 of 10", "videos: 10 of 10"]
    assert "film 9" in caplog.records[-1].getMessage()
