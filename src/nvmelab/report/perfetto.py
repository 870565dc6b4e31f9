"""A run as a Perfetto trace, in the JSON form that ui.perfetto.dev and chrome://tracing open.

One process; for each submission queue as many tracks as it has commands at once, each command a
slice with its stages inside; tracks for doorbells and interrupts; arrows from the doorbell that
told of a command to its fetch, to its completion, to the interrupt; counters of what is rung and at
the device. What never ended, up to a reset or to the end, says so. Where nothing tells when
completions are released (shadow doorbells: a device looks at the head only when it needs room), a
command ends when it is posted. Written while the log is read, so that a long one takes no memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from typing import Any, TextIO

from nvmelab.check.chain import Handler
from nvmelab.check.model import Command, Cq, Sq, Values
from nvmelab.check.monitor import Monitor
from nvmelab.spec.commands import AdminOpcode, NvmOpcode

_PID = 1
_DOORBELLS, _INTERRUPTS = 1, 2
_LANES = 1 << 16
"""Thread numbers of a queue's tracks begin at its identifier and 1, times this."""
_TICK = 1
"""Nanoseconds of a slice for what takes no time: flows need a slice to begin in."""
_STAGES = (
    ("rung", "rung, waits to be fetched", ""),
    ("fetched", "fetched, carried out", "fetched, never finished"),
    ("finished", "finished, waits to be posted", "finished, never posted"),
    ("posted", "posted, waits to be released", "posted, never released"),
)
"""What a command is called at each stage, and if it never leaves it."""
_POSTED = "posted; when it is released does not show"
_WAITING_MAX = 4096
"""Commands that are kept for the interrupt that tells of them."""


class PerfettoWriter:
    """Feed it with `handlers`, and set `now` before. In the place of the line stands that time."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._first = True
        self.slices = 0
        """Commands that were written."""
        monitor = self._monitor = Monitor()
        monitor.on_released = self._released
        self._lanes: dict[int, list[int]] = {}
        """When each track of a queue is free; 0 while it is not."""
        self._lane_of: dict[Command, int] = {}
        self._interrupts: dict[int, int] = {}
        """The last interrupt for each completion queue."""
        self._waiting: dict[int, list[tuple[Command, int]]] = {}
        """By completion queue, what is posted, with its track, and waits only for the interrupt
        behind it to be written."""
        self.blind = False
        """Nothing tells when some completions are released."""
        self.now = 0
        """The time in ns: rises with every line, also with those that nobody takes."""
        self.handlers: dict[str, Handler] = dict(monitor.handlers)
        for event, after in (
            ("mmio_doorbell_sq", self._tail),
            ("update_sq_tail", self._tail),
            ("mmio_doorbell_cq", self._head),
            ("update_cq_head", self._head),
            ("command", self._fetched),
            ("cqe", self._entry),
            ("msix", self._interrupt),
            ("interrupt", self._interrupt),
        ):
            self.handlers[event] = self._with(monitor.handlers[event], after)
        self.handlers["finished"] = self._finishing(monitor.handlers["finished"])
        for event in ("started", "stopped", "reset"):
            self.handlers[event] = self._before(monitor.handlers[event])
        file.write('{"displayTimeUnit": "ns", "traceEvents": [')
        self._put("M", 0, 0, name="process_name", args={"name": name})
        self._thread(_DOORBELLS, "doorbells", 0)
        self._thread(_INTERRUPTS, "interrupts", 1)

    def close(self) -> None:
        """Write what never ended, and the end."""
        self._abandon()
        self._file.write("\n]}\n")

    # The form.

    def _put(self, phase: str, thread: int, ns: int, **fields: Any) -> None:
        event = {"ph": phase, "pid": _PID, "tid": thread, "ts": ns / 1000, **fields}
        self._file.write(("\n" if self._first else ",\n") + json.dumps(event))
        self._first = False

    def _thread(self, thread: int, name: str, place: int) -> None:
        self._put("M", thread, 0, name="thread_name", args={"name": name})
        self._put("M", thread, 0, name="thread_sort_index", args={"sort_index": place})

    def _slice(self, thread: int, begin: int, end: int, name: str, **args: Any) -> None:
        self._put("X", thread, begin, dur=max(end - begin, _TICK) / 1000, name=name, args=args)

    def _flow(self, phase: str, number: int, thread: int, ns: int) -> None:
        more = {"bp": "e"} if phase == "f" else {}
        self._put(phase, thread, ns, cat="command", name="command", id=number, **more)

    # What happens.

    def _with(self, handle: Handler, after: Callable[[Values], None]) -> Handler:
        def handled(at: int, values: Values) -> None:
            handle(at, values)
            after(values)

        return handled

    def _before(self, handle: Handler) -> Handler:
        """A reset ends all commands."""

        def handled(at: int, values: Values) -> None:
            self._abandon()
            for sqid in self._monitor.sqs:
                self._count(sqid, 0, 0)
            handle(at, values)

        return handled

    def _finishing(self, handle: Handler) -> Handler:
        """So does the deletion of a queue."""
        monitor = self._monitor

        def handled(at: int, values: Values) -> None:
            before = None if values[1] else dict(monitor.sqs)
            handle(at, values)
            for sqid, sq in (before or {}).items():
                if sqid not in monitor.sqs:
                    self._abandon(sq)
                    self._count(sqid, 0, 0)
            if monitor.last_finished:
                self._counted_of(monitor.last_finished.id)

        return handled

    def _tail(self, values: Values) -> None:
        self._slice(_DOORBELLS, self.now, self.now, f"SQ {values[0]} tail {values[1]}")
        self._counted_of(values[0])

    def _head(self, values: Values) -> None:
        self._slice(_DOORBELLS, self.now, self.now, f"CQ {values[0]} head {values[1]}")

    def _interrupt(self, values: Values) -> None:
        name = f"vector {values[0]}" if values else "posted"
        self._slice(_INTERRUPTS, self.now, self.now, name)
        for cq in self._monitor.cqs.values():
            self._posted(cq)
            if not values or cq.vector in (None, values[0]):
                self._interrupts[cq.id] = self.now
                self._write_waiting(cq.id)

    def _shows_release(self, command: Command) -> bool:
        """With ioeventfd, QEMU logs no doorbells of I/O queues; with shadow doorbells, nobody knows
        until the device looks."""
        return not (command.sq.id and (self._monitor.shadows or command.sq.silent))

    def _entry(self, values: Values) -> None:
        self._posted(self._monitor.cqs[values[0]])

    def _posted(self, cq: Cq) -> None:
        """What is posted has ended, if no more will be told of it."""
        for command in reversed(cq.posted):
            if command not in self._lane_of or self._shows_release(command):
                return
            self.blind = True
            lane = self._lane_of.pop(command)
            self._lanes[command.sq.id][lane] = command.posted + _TICK
            waiting = self._waiting.setdefault(cq.id, [])
            waiting.append((command, lane))
            if len(waiting) > _WAITING_MAX:
                self._write_waiting(cq.id)

    def _write_waiting(self, cqid: int) -> None:
        for command, lane in self._waiting.pop(cqid, ()):
            self._write(command, lane, command.posted + _TICK, _POSTED)

    def _fetched(self, values: Values) -> None:
        command = self._monitor.last
        if command is None:
            return
        begin = command.rung or command.fetched
        self._lane_of[command] = self._free_lane(command.sq.id, begin)
        self._counted_of(command.sq.id)

    def _free_lane(self, sqid: int, begin: int) -> int:
        """A track of that queue that is free from then on; it is taken now."""
        lanes = self._lanes.setdefault(sqid, [])
        lane = next((n for n, free in enumerate(lanes) if 0 < free <= begin), len(lanes))
        if lane == len(lanes):
            lanes.append(0)
            thread = self._thread_of(sqid, lane)
            self._thread(thread, f"SQ {sqid}" + f" ({lane + 1})" * (lane > 0), thread)
        lanes[lane] = 0
        return lane

    @staticmethod
    def _thread_of(sqid: int, lane: int) -> int:
        return (sqid + 1) * _LANES + lane

    def _counted_of(self, sqid: int) -> None:
        sq = self._monitor.sqs.get(sqid)
        if sq:
            self._count(sqid, len(sq.rung), len(sq.flight))

    def _count(self, sqid: int, rung: int, flight: int) -> None:
        counts = {"rung": rung, "at the device": flight}
        self._put("C", 0, self.now, name=f"SQ {sqid}", args=counts)

    def _released(self, command: Command) -> None:
        lane = self._lane_of.pop(command, None)
        if lane is not None:
            self._write(command, lane, command.released or self.now)

    def _abandon(self, sq: Sq | None = None) -> None:
        """What has not ended is shown up to now: of that queue, which is deleted, or of all."""
        for command, lane in list(self._lane_of.items()):
            # What a deleted queue has posted can still be released.
            if sq is None or (command.sq is sq and not command.posted):
                del self._lane_of[command]
                self._write(command, lane, self.now)
        for one in self._monitor.sqs.values() if sq is None else [sq]:
            self._abandon_rung(one)
        if sq is None:
            for cqid in list(self._waiting):
                self._write_waiting(cqid)

    def _abandon_rung(self, sq: Sq) -> None:
        """Entries that were never fetched: which commands they are does not show."""
        for rung, entries in groupby(sq.rung):
            lane, count = self._free_lane(sq.id, rung), sum(1 for _ in entries)
            end = self._lanes[sq.id][lane] = max(self.now, rung + _TICK)
            name = "rung, never fetched" + f" ({count} entries)" * (count > 1)
            self._slice(self._thread_of(sq.id, lane), rung, end, name, fetched="never")

    def _write(self, command: Command, lane: int, end: int, posted: str = "") -> None:
        """`posted` is what its last stage is called, where that takes no time."""
        sq = command.sq
        self.slices += 1
        thread = self._thread_of(sq.id, lane)
        times = [getattr(command, stage) for stage, _text, _never in _STAGES]
        begin = times[0] or times[1]
        end = max(end, begin + _TICK)
        if not posted:
            self._lanes[sq.id][lane] = end
        opcodes = NvmOpcode if sq.id else AdminOpcode
        args: dict[str, Any] = {"cid": command.cid, "status": command.status}
        if command.words:
            args |= {"nsid": command.words[1], "cdw10": command.words[10]}
        name = f"{opcodes(command.opcode).label} {command.cid:#x}"
        if posted:
            args["released"] = "does not show"
        elif not command.released:
            args["released"] = "never"
            if not times[3]:
                name += ", never " + ("posted" if times[2] else "finished")
        self._slice(thread, begin, end, name, **args)
        for number, (_stage, text, never) in enumerate(_STAGES):
            since, until = times[number], [*times, end][number + 1]
            if number == 3 and posted:
                text = posted
            elif not command.released and not any(times[number + 1 :]):
                text = never
            if since:
                self._slice(thread, since, until or end, text)
        if times[0]:
            number = self.slices
            self._flow("s", number, _DOORBELLS, times[0])
            told = self._interrupts.get(sq.cq.id if sq.cq else -1, 0)
            if times[3] and times[3] <= told and (posted or told <= end):
                self._flow("t", number, thread, times[1])
                self._flow("t", number, thread, times[3])
                self._flow("f", number, _INTERRUPTS, told)
            elif times[3]:
                self._flow("t", number, thread, times[1])
                self._flow("f", number, thread, times[3])
            else:
                self._flow("f", number, thread, times[1])
