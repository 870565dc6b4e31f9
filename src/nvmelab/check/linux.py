"""What Linux's own tracepoints tell of its queues: which commands were set up and never completed.

The driver's side of it alone. No tracepoint shows a doorbell, an entry or an interrupt, so who has
the ball does not show, and nothing here accuses anybody. Nor does a tag that is set up twice, which
is what Linux does when it has no memory for the data and tries again; or a completion without a
command, as the events may have been filtered.
"""

from __future__ import annotations

import re

from nvmelab.check.ball import Party
from nvmelab.check.verdict import Verdict
from nvmelab.check.waiting import Stuck
from nvmelab.limits import TRACE_FLIGHT_MAX, TRACE_GIVEN_UP_US, TRACE_SKEW_US

_TAGS = 0xFFF
"""What counts in a command identifier: above it Linux has a count of the tag's uses, and no queue
is longer then."""
_CANCELLED = 1
"""Flag of a request that the driver has ended itself."""
_HOST_ABORTED = 0x371
"""The status that it gives such a request (Base 2.2, 4.2.3.4: Command Aborted By Host)."""
_CREATE = re.compile(r"sqid=(\d{1,5}), qsize=(\d{1,5}),")
_ABORT = re.compile(r"cdw10=([0-9a-f]{2}) ([0-9a-f]{2}) ([0-9a-f]{2}) ([0-9a-f]{2})\b")
_SHOWN = 8
"""Lines that a verdict names of one queue."""
_QUEUES_SHOWN = 4
"""Queues whose oldest command is described."""


class TooMany(Exception):
    """More commands are outstanding than any trace has. One line for the user."""


class Sent:
    """A command that was set up."""

    __slots__ = ("aborted", "cid", "line", "name", "us")

    def __init__(self, line: int, us: int | None, cid: int, name: str) -> None:
        self.line = line
        self.us = us
        self.cid = cid
        self.name = name
        self.aborted = 0
        """The line with the Abort for it."""


class LinuxSq:
    """A submission queue of one controller."""

    def __init__(self, controller: str, id: int) -> None:
        self.controller = controller
        self.id = id
        self.entries: int | None = None
        self.from_start = False
        """Its creation is in the trace, so that every command of it is."""
        self.flight: dict[int, Sent] = {}
        """By tag, oldest first."""
        self.early: dict[int, tuple[int, int]] = {}
        """Completions without a command: by tag, the identifier and the time."""
        self.seen: tuple[int, int, int] | None = None
        """The line, SQHD and tail of the last completion that was taken."""
        self.given_up: list[int] = []
        """Lines of commands that the driver did not wait for any longer: the first."""
        self.given_up_note = ""
        """What is to be said of the first of them."""
        self.given_up_count = 0

    @property
    def name(self) -> str:
        return f"{self.controller} SQ {self.id}".lstrip()

    def tag(self, cid: int) -> int:
        return cid if self.entries and self.entries > _TAGS + 1 else cid & _TAGS

    def of(self, cid: int) -> Sent | None:
        """The command that a completion, or an Abort, names: some of Linux 5 complete by tag."""
        sent = self.flight.get(self.tag(cid))
        return sent if sent and cid in (sent.cid, self.tag(cid)) else None


class LinuxMonitor:
    """Listens to a trace (`trace.ftrace_reader`). Raises TooMany."""

    def __init__(self) -> None:
        self.count = 0
        """Commands that were set up, all in all."""
        self.again = 0
        """The line where another trace begins: what went before is forgotten."""
        self._begin()

    def _begin(self) -> None:
        self.sqs: dict[tuple[str, int], LinuxSq] = {}
        self.completions = 0
        self.repeated: list[int] = []
        """Lines that set up a tag once more, with no completion between: the first."""
        self.cancelled: list[int] = []
        """Lines of commands that the driver ended itself: the first."""
        self.lost_at = 0
        """The first line where events were lost."""
        self.left_out: tuple[int, int] | None = None
        """Events of so many that are in the trace, if they are not all."""
        self.last_us: int | None = None
        self._kept = 0

    def _sq(self, controller: str, qid: int) -> LinuxSq:
        sq = self.sqs.get((controller, qid))
        if sq is None:
            self._keep(1)
            sq = self.sqs[controller, qid] = LinuxSq(controller, qid)
        return sq

    def _keep(self, count: int) -> None:
        self._kept += count
        if self._kept > TRACE_FLIGHT_MAX:
            raise TooMany(
                f"more than {TRACE_FLIGHT_MAX:,} commands and queues are set up and not completed: "
                "this is no trace of a machine"
            )

    def begins(self, at: int, kept: int, written: int) -> None:
        """A dump of the whole buffer: what was dumped before is in it again."""
        if self.count:
            self._begin()
            self.again = at
        self.left_out = (kept, written) if kept < written else None

    def lost(self, at: int) -> None:
        self.lost_at = self.lost_at or at

    def _clock(self, at: int, us: int | None) -> None:
        if us is not None:
            if self.last_us is not None and us < self.last_us - 1_000_000:
                self._begin()  # the machine was started again
                self.again = at
            self.last_us = max(us, self.last_us or 0)

    def set_up(
        self, at: int, us: int | None, controller: str, qid: int, cid: int, name: str, words: str
    ) -> None:
        self._clock(at, us)
        self.count += 1
        sq = self._sq(controller, qid)
        tag = sq.tag(cid)
        early = sq.early.pop(tag, None)
        if early:
            self._keep(-1)
            if early[0] in (cid, tag) and us is not None and us - early[1] <= TRACE_SKEW_US:
                return  # two processors' clocks
        if sq.flight.pop(tag, None):
            self._keep(-1)
            if len(self.repeated) < _SHOWN:
                self.repeated.append(at)
        self._keep(1)
        sq.flight[tag] = Sent(at, us, cid, f"{name} {words}".strip())
        if qid == 0:
            self._administer(at, us, controller, name, words)

    def _administer(self, at: int, us: int | None, controller: str, name: str, words: str) -> None:
        """What an admin command says of other queues."""
        if name == "nvme_admin_create_sq" and (created := _CREATE.search(words)):
            sqid, qsize = map(int, created.groups())
            sq = self._sq(controller, sqid)
            self._keep(-len(sq.flight) - len(sq.early))
            sq.flight.clear()  # of the queue of that number before
            sq.early.clear()
            sq.entries, sq.from_start, sq.seen = qsize + 1, True, None
        elif name == "nvme_admin_abort_cmd" and (abort := _ABORT.search(words)):
            low = [int(byte, 16) for byte in abort.groups()]
            aborted = self.sqs.get((controller, low[0] | low[1] << 8))
            sent = aborted.of(low[2] | low[3] << 8) if aborted else None
            if aborted and sent and not sent.aborted:
                sent.aborted = at
                self._give_up(at, us, aborted, sent)

    @staticmethod
    def _give_up(at: int, us: int | None, sq: LinuxSq, sent: Sent) -> None:
        sq.given_up_count += 1
        if not sq.given_up:
            timed = us is not None and sent.us is not None
            waited = f" after {(us - sent.us) / 1e6:,.1f} s" if timed else ""  # type: ignore[operator]
            sq.given_up_note = _told(sq, sent, f", given up in line {at}{waited},")
        if len(sq.given_up) < _SHOWN:
            sq.given_up.append(sent.line)

    def completed(
        self, at: int, us: int | None, controller: str, qid: int, cid: int, status: int, flags: int
    ) -> None:
        self._clock(at, us)
        self.completions += 1
        sq = self.sqs.get((controller, qid))
        sent = sq.of(cid) if sq else None
        if sent is None and not controller:
            # Linux up to 4.18 numbers admin commands' queue otherwise here.
            sq = self.sqs.get((controller, 0))
            sent = sq.of(cid) if sq else None
        if sq is None or sent is None:
            if sq and sq.from_start and us is not None and sq.tag(cid) not in sq.flight:
                self._keep(int(sq.tag(cid) not in sq.early))
                sq.early[sq.tag(cid)] = (cid, us)
            return
        del sq.flight[sq.tag(cid)]
        self._keep(-1)
        if flags & _CANCELLED or status & 0x7FF == _HOST_ABORTED:
            if len(self.cancelled) < _SHOWN:
                self.cancelled.append(at)
            waited = us is not None and sent.us is not None and us - sent.us
            if not sent.aborted and waited and waited >= TRACE_GIVEN_UP_US:
                self._give_up(at, us, sq, sent)

    def position(self, at: int, controller: str, qid: int, head: int, tail: int) -> None:
        sq = self.sqs.get((controller, qid))
        if sq:
            sq.seen = (at, head, tail)


def judge_linux(monitor: LinuxMonitor, *, rest: bool) -> Verdict:
    """The verdict on a trace: `undecided` where commands were left, as nothing in it says by whom;
    otherwise `clean`."""
    sqs = sorted(monitor.sqs.values(), key=lambda sq: (sq.controller, sq.id))
    stuck = [part for sq in sqs for part in _stuck(sq, rest=rest)]
    return Verdict(
        verdict="undecided" if stuck else "clean",
        stuck=stuck,
        findings=[],
        pattern=None,
        in_flight=sum(len(sq.flight) for sq in sqs),
        rule="",
        notes=_notes(monitor, sqs, bool(stuck), rest=rest),
        exercised=[],
    )


def _stuck(sq: LinuxSq, *, rest: bool) -> list[Stuck]:
    parts = []
    ball: list[Party] = ["device", "platform", "driver"]
    if sq.given_up:
        owed = "complete it, deliver its interrupt, or take its completion, in time"
        parts.append(
            Stuck(
                *(sq.id, sq.entries, "given up", sq.given_up_count, ball, owed, sq.given_up),
                sq.controller,
            )
        )
    # What was aborted is among those.
    lines = [sent.line for sent in sq.flight.values() if not sent.aborted]
    if rest and lines:
        owed = "complete it, deliver its interrupt, or take its completion"
        parts.append(
            Stuck(
                *(sq.id, sq.entries, "set up", len(lines), ball, owed, lines[:_SHOWN]),
                sq.controller,
            )
        )
    return parts


def _notes(monitor: LinuxMonitor, sqs: list[LinuxSq], stuck: bool, *, rest: bool) -> list[str]:
    notes = []
    if stuck:
        notes += [sq.given_up_note for sq in sqs if sq.given_up_note][:_QUEUES_SHOWN]
        if rest:
            waiting = [sq for sq in sqs if sq.flight][:_QUEUES_SHOWN]
            notes += [_of_oldest(sq, monitor.last_us) for sq in waiting]
        notes.append(
            "Linux's tracepoints show no doorbell, no completion queue entry and no interrupt, so "
            "not who has the ball: record the device's log of the same hang (QEMU's -trace "
            "'pci_nvme_*'), or run the guest on nvmelab run --check"
        )
        if not monitor.completions:
            notes.append("there is no completion at all: was nvme_complete_rq recorded?")
        if monitor.lost_at or monitor.left_out:
            where = f"in line {monitor.lost_at}" if monitor.lost_at else "before its first line"
            notes.append(
                f"the trace has lost events {where}, completions perhaps: record it again with "
                "a larger buffer_size_kb, or with trace-cmd record -b"
            )
    elif rest:
        notes.append(
            "no command is outstanding in this trace: what waits, waits for something else"
        )
    if monitor.cancelled:
        notes.append(
            f"Linux has ended commands itself ({_lines(monitor.cancelled)}): it reset the "
            "controller, because it waited in vain or was told to"
        )
    if monitor.repeated:
        notes.append(
            f"a tag is set up again without a completion ({_lines(monitor.repeated)}), as Linux "
            "does when it could not submit it the first time: nothing follows from it"
        )
    early = [sq for sq in sqs if sq.early]
    if early and not (monitor.lost_at or monitor.left_out):
        notes.append(
            f"{early[0].name} has completions of commands that were not set up: unless the events "
            "were filtered, look for `invalid id` in the kernel's log"
        )
    if monitor.again:
        notes.append(
            f"another trace begins in line {monitor.again}: what stands before it was left out"
        )
    return notes


def _of_oldest(sq: LinuxSq, end: int | None) -> str:
    sent = next(iter(sq.flight.values()))
    timed = end is not None and sent.us is not None
    waited = f", {(end - sent.us) / 1e6:,.1f} s before the end" if timed else ""  # type: ignore[operator]
    return _told(sq, sent, f", the oldest{waited},")


def _told(sq: LinuxSq, sent: Sent, when: str) -> str:
    """What a command is, and what the queue has done since."""
    said = f"{sq.name}: line {sent.line}{when} is CID {sent.cid:#x}, {sent.name}"
    if sq.seen is None or sq.seen[0] < sent.line:
        return f"{said}; nothing was completed on this queue after it"
    line, head, tail = sq.seen
    if head == tail:
        return f"{said}; by line {line} the device had fetched all that was written (SQHD {head})"
    return (
        f"{said}; in line {line} the device had fetched up to slot {head}, and the driver had "
        f"written up to {tail}"
    )


def _lines(lines: list[int]) -> str:
    more = ", ..." * (len(lines) == _SHOWN)
    return f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}{more}"
