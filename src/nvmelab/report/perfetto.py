"""A run as a Perfetto trace, in the JSON form that ui.perfetto.dev and chrome://tracing open.

One process; for each submission queue as many tracks as it has commands at once, each command a
slice with its stages inside; tracks for doorbells and interrupts; arrows from the doorbell that
told of a command to its fetch, to its completion, to the interrupt; counters of what is rung and at
the device. Written while the log is read, so that a long one takes no memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from nvmelab.check.chain import Handler
from nvmelab.check.model import Command, Values
from nvmelab.check.monitor import Monitor
from nvmelab.spec.commands import AdminOpcode, NvmOpcode

_PID = 1
_DOORBELLS, _INTERRUPTS = 1, 2
_LANES = 1 << 16
"""Thread numbers of a queue's tracks begin at its identifier and 1, times this."""
_TICK = 1
"""Nanoseconds of a slice for what takes no time: flows need a slice to begin in."""
_STAGES = (
    ("rung", "rung, waits to be fetched"),
    ("fetched", "fetched, carried out"),
    ("finished", "finished, waits to be posted"),
    ("posted", "posted, waits to be released"),
)


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
        self.now = 0
        """The time in ns: rises with every line, also with those that nobody takes."""
        self.handlers: dict[str, Handler] = dict(monitor.handlers)
        for event, after in (
            ("mmio_doorbell_sq", self._tail),
            ("update_sq_tail", self._tail),
            ("mmio_doorbell_cq", self._head),
            ("update_cq_head", self._head),
            ("command", self._fetched),
            ("finished", self._counted),
            ("msix", self._interrupt),
            ("interrupt", self._interrupt),
        ):
            self.handlers[event] = self._with(monitor.handlers[event], after)
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
            handle(at, values)

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
            if not values or cq.vector in (None, values[0]):
                self._interrupts[cq.id] = self.now

    def _fetched(self, values: Values) -> None:
        command = self._monitor.last
        if command is None:
            return
        lanes = self._lanes.setdefault(command.sq.id, [])
        begin = command.rung or command.fetched
        lane = next((n for n, free in enumerate(lanes) if 0 < free <= begin), len(lanes))
        if lane == len(lanes):
            lanes.append(0)
            thread = (command.sq.id + 1) * _LANES + lane
            self._thread(thread, f"SQ {command.sq.id}" + f" ({lane + 1})" * (lane > 0), thread)
        lanes[lane] = 0
        self._lane_of[command] = lane
        self._counted_of(command.sq.id)

    def _counted(self, _values: Values) -> None:
        if self._monitor.last_finished:
            self._counted_of(self._monitor.last_finished.id)

    def _counted_of(self, sqid: int) -> None:
        sq = self._monitor.sqs.get(sqid)
        if sq:
            counts = {"rung": len(sq.rung), "at the device": len(sq.flight)}
            self._put("C", 0, self.now, name=f"SQ {sqid}", args=counts)

    def _released(self, command: Command) -> None:
        self._write(command, command.released or self.now)

    def _abandon(self) -> None:
        """What has not ended is shown up to now."""
        for command in list(self._lane_of):
            self._write(command, self.now)

    def _write(self, command: Command, end: int) -> None:
        lane = self._lane_of.pop(command, None)
        if lane is None:
            return
        sq = command.sq
        self.slices += 1
        thread = (sq.id + 1) * _LANES + lane
        times = [getattr(command, stage) for stage, _text in _STAGES]
        begin = times[0] or times[1]
        end = max(end, begin + _TICK)
        self._lanes[sq.id][lane] = end
        opcodes = NvmOpcode if sq.id else AdminOpcode
        args: dict[str, Any] = {"cid": command.cid, "status": command.status}
        if command.words:
            args |= {"nsid": command.words[1], "cdw10": command.words[10]}
        if not command.released:
            args["released"] = "never"
        name = f"{opcodes(command.opcode).label} {command.cid:#x}"
        self._slice(thread, begin, end, name, **args)
        for (_stage, text), since, until in zip(_STAGES, times, [*times[1:], end], strict=True):
            if since:
                self._slice(thread, since, until or end, text)
        if times[0]:
            number = self.slices
            self._flow("s", number, _DOORBELLS, times[0])
            told = self._interrupts.get(sq.cq.id if sq.cq else -1, 0)
            if times[3] and times[3] <= told <= end:
                self._flow("t", number, thread, times[1])
                self._flow("t", number, thread, times[3])
                self._flow("f", number, _INTERRUPTS, told)
            elif times[3]:
                self._flow("t", number, thread, times[1])
                self._flow("f", number, thread, times[3])
            else:
                self._flow("f", number, thread, times[1])
