"""The page of a log: what is recorded of it, and what is put into the page."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.report import recorder as recorder_module
from nvmelab.report.log_page import log_page
from nvmelab.report.recorder import Recorder, Snapshot, snapshot
from nvmelab.trace.qemu_reader import read_log
from tests.check.test_diagnosis import EXCERPT, HANG, SOUND
from tests.check.test_monitor import IRQ, ROUND, START, STARTED, fetch, finish, release, ring


def recorded(log: bytes, sq_entries: int | None = None) -> Recorder:
    recorder = Recorder(Monitor(sq_entries))
    read_log([log], recorder.handlers, recorder.line)
    return recorder


def page_of(log: bytes, *, hung: bool, sq_entries: int | None = None) -> str:
    recorder = Recorder(Monitor(sq_entries))
    counts = read_log([log], recorder.handlers, recorder.line)
    verdict = judge(recorder.monitor, rest=hung)
    return log_page(recorder, verdict, counts, name="<b>.log", hung=hung)


def data_in(page: str) -> dict[str, Any]:
    (packed,) = re.findall(r'<script id="data" type="text/plain">([^<]*)</script>', page)
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return data


def replayed(recorder: Recorder) -> list[dict[int, Snapshot]]:
    """The state after each row, as the script of the page makes it."""
    now = {sqid: dict(state) for sqid, state in recorder.base.items()}
    states = []
    for row in recorder.rows:
        if row.sqid >= 0:
            now.setdefault(row.sqid, {}).update(row.changes)
        if recorder_module.KINDS[row.kind] in ("started", "stopped", "reset"):
            now.clear()
        states.append({sqid: dict(state) for sqid, state in now.items()})
    return states


LOGS = {"excerpt": EXCERPT, "hang": HANG, "sound": SOUND, "round": (START + ROUND * 9).encode()}


@pytest.mark.parametrize("name", LOGS)
def test_the_state_after_each_event_is_the_monitors(name: str) -> None:
    recorder = recorded(LOGS[name])
    states = dict(zip((row.line for row in recorder.rows), replayed(recorder), strict=True))
    lines = LOGS[name].splitlines(keepends=True)
    compared = 0
    for row in list(recorder.rows):
        if row.sqid < 0:
            continue
        monitor = Monitor()
        read_log([b"".join(lines[: row.line])], monitor.handlers)
        assert states[row.line][row.sqid] == snapshot(monitor.sqs[row.sqid], monitor), row
        compared += 1
    assert compared >= 9


def test_a_page_keeps_the_last_events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    log = (START + ROUND * 40).encode()
    whole = replayed(recorded(log))
    monkeypatch.setattr(recorder_module, "PAGE_EVENTS_MAX", 30)
    recorder = recorded(log)
    assert len(recorder.rows) == 30 and recorder.dropped == len(whole) - 30
    assert replayed(recorder) == whole[-30:]


def test_a_deep_queue_names_few_of_its_commands() -> None:
    deep = START.replace("qsize=3", "qsize=1023")
    log = deep + ring(900) + "".join(fetch(cid) for cid in range(900))
    row = recorded(log.encode()).rows[-1]
    assert row.changes["F"] == 900 and "f" not in row.changes


def test_text_of_the_log_is_no_markup() -> None:
    bad = "</script><script>alert(1)</script><!--"
    page = page_of((START + ring(1).strip() + bad + "\n").encode(), hung=True)
    assert bad not in page and page.count("<script") == 2
    assert "<b>.log" not in page and "&lt;b&gt;.log" in page
    data = data_in(page)
    assert bad in data["rows"][-1][-1] and data["name"] == "<b>.log"


def test_times_are_those_of_the_lines() -> None:
    for stamp in ("77@1795357333.{:06}:", "2026-11-22T14:22:14.{:06}Z "):
        lines = (START + ROUND).splitlines()
        log = "".join(stamp.format(100 + 7 * i) + line + "\n" for i, line in enumerate(lines))
        rows = recorded(log.encode()).rows
        assert [row.us for row in rows] == [7 * (row.line - 1) for row in rows]
    assert {row.us for row in recorded((START + ROUND).encode()).rows} == {None}
    odd = "2026-99-99T99:99:99Z " + ring(1)
    assert recorded(odd.encode()).rows[0].us is None


def test_the_hang_is_told_in_words() -> None:
    data = data_in(page_of(EXCERPT, hung=True, sq_entries=4))
    assert (data["verdict"], data["said"]) == ("device", "The device holds the ball")
    assert data["why"].startswith("2 commands are rung, never fetched on SQ 1.")
    assert [line for line, _text in data["pattern"]["lines"]] == [12, 13, 17, 22]
    assert data["evidence"] == [4, 12, 13, 17, 22]
    stages = {command[1]: command[3:8] for command in data["commands"]}
    assert stages == {4: [1, 4, 0, 0, 0]}


def test_a_clean_log_has_a_page_too() -> None:
    data = data_in(page_of(SOUND, hung=False))
    assert (data["verdict"], data["said"]) == ("clean", "Clean")
    text = START + ring(1) + fetch(7) + finish(7) + IRQ + release(1)
    (command,) = [c for c in data_in(page_of(text.encode(), hung=True))["commands"] if c[0] == 1]
    assert command[3:8] == [STARTED + number for number in range(1, 6)]
