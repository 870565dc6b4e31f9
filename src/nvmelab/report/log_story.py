"""The end of a log as a story: what happened on the queue pair that is stuck, line by line.

A second reading of the log, in which the monitor is asked after each line of that queue what it
knows. A log does not show what is in an entry before it is fetched, so entries are numbered in the
order in which they were rung.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from nvmelab.check.model import Command, Cq, Sq
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import OVER_COMMITTED, Stuck, Verdict
from nvmelab.explore import story
from nvmelab.limits import LOG_ENTRIES_MAX, LOG_MOMENTS_MAX, LOG_MOMENTS_MIN, LOG_SLOTS_MAX
from nvmelab.trace.qemu_reader import Values, read_log

_OF_QUEUES = (
    *("mmio_doorbell_sq", "update_sq_tail", "mmio_doorbell_cq", "update_cq_head", "command"),
    *("finished", "interrupt", "msix", "fetching_ends", "pool_at_post"),
)


class TooLarge(Exception):
    """No page can show this queue. One line for the user."""


def log_story(
    chunks: Iterable[bytes], verdict: Verdict, part: Stuck, monitor: Monitor
) -> story.Story:
    """The last moments of the queue of `part`, as many as a page may have. `monitor` has read the
    same log. Raises TooLarge."""
    known = monitor.sqs[part.sqid]
    size = max(known.entries or known.most + 1, known.cq.entries or 1 if known.cq else 1)
    if size > LOG_ENTRIES_MAX:
        raise TooLarge(f"--html shows queues of at most {LOG_ENTRIES_MAX} entries, not {size}")
    told = _Teller(part.sqid, monitor)
    read_log(chunks, told.handlers())
    moments = [
        msgspec.structs.replace(moment, number=number)
        for number, moment in enumerate([told.first(), *told.moments])
    ]
    commands = "1 command" if part.count == 1 else f"{part.count} commands"
    states = {"rung": "rung, never fetched", "fetched": "fetched, never finished",
              "finished": "finished, never posted", "posted": "posted, never released"}  # fmt: skip
    return story.Story(
        title=f"SQ {part.sqid}: {commands} {states[part.state]}",
        scenario="a log",
        device="",
        driver="",
        parameters={
            "entries": part.entries or "not known",
            "left out": f"{told.dropped:,} moments before" if told.dropped else "",
        },
        result="hang",
        ball=" or ".join(part.ball),
        owed=f"{commands} {states[part.state]}; {part.owed}",
        why=_why(verdict),
        rule=verdict.rule,
        shortest=None,
        moments=moments,
        glossary={},
    )


def _why(verdict: Verdict) -> str:
    pattern = verdict.pattern
    if pattern and pattern.name == OVER_COMMITTED:
        return (
            f"When line {pattern.rung} rang the tail no request was free (line {pattern.dry}); "
            f"line {pattern.freed} freed one, and nothing was fetched after it."
        )
    return " ".join(verdict.notes)


class _Teller:
    """A monitor that tells of one queue pair."""

    def __init__(self, sqid: int, read: Monitor) -> None:
        self._sqid = sqid
        self._monitor = Monitor(read.sq_entries)
        # Of queues whose creation is not seen the size is what their pointers need.
        known = read.sqs[sqid]
        self._size = known.entries or known.most + 1
        self._cq_size = (known.cq.entries or known.cq.most + 1) if known.cq else 1
        fit = LOG_SLOTS_MAX // (self._size + self._cq_size)
        self._most = min(max(fit, LOG_MOMENTS_MIN), LOG_MOMENTS_MAX)
        self.moments: deque[story.Moment] = deque(maxlen=self._most)
        self.dropped = 0
        self._first: story.Moment | None = None
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        self._rung: deque[int] = deque()
        self._numbers: dict[int, str] = {}
        self._sq_slots = [("", "free")] * self._size
        self._places: dict[str, int] = {}
        self._cq_slots = [("", "free")] * self._cq_size
        self._cq_tail = 0
        self._raised = False

    def handlers(self) -> dict[str, Callable[[int, Values], None]]:
        """As the monitor's, those of this queue pair told."""
        handlers = dict(self._monitor.handlers)
        for name in _OF_QUEUES:
            handlers[name] = self._told(name)
        for name in ("started", "stopped", "reset"):
            handlers[name] = self._forgotten(name)
        return handlers

    def _told(self, name: str) -> Callable[[int, Values], None]:
        handle, tell = self._monitor.handlers[name], getattr(self, f"_{name}")

        def told(at: int, values: Values) -> None:
            before = self._queues()
            posted = list(before[1].posted) if before else []
            rung = len(before[0].rung) if before else 0
            handle(at, values)
            after = self._queues()
            if after:
                tell(at, values, after[0], after[1], rung, posted)

        return told

    def _forgotten(self, name: str) -> Callable[[int, Values], None]:
        handle = self._monitor.handlers[name]

        def forgotten(at: int, values: Values) -> None:
            handle(at, values)
            self._begin()

        return forgotten

    def _queues(self) -> tuple[Sq, Cq] | None:
        sq = self._monitor.sqs.get(self._sqid)
        return (sq, sq.cq) if sq and sq.cq else None

    # Events. `rung` and `posted` are as they were before.

    def _update_sq_tail(
        self, at: int, values: Values, sq: Sq, cq: Cq, rung: int, _posted: list[Command]
    ) -> None:
        if values[0] != self._sqid:
            return
        arrows, names = [], []
        slot = (values[1] - (len(sq.rung) - rung)) % self._size
        for _ in range(len(sq.rung) - rung):
            self._count += 1
            name = str(self._count)
            names.append(name)
            self._rung.append(self._count)
            self._sq_slots[slot] = (name, "rung")
            self._places[name] = slot
            arrows.append(story.Arrow("driver", "sq", f"{name} in slot {slot}"))
            slot = (slot + 1) % self._size
        entries = "entry" if len(names) == 1 else "entries"
        text = f"rings tail {values[1]}" + (f": {entries} {', '.join(names)}" if names else "")
        arrows.append(story.Arrow("driver", "device", f"tail {values[1]}"))
        self._add(at, "driver", text, arrows, sq, cq)

    _mmio_doorbell_sq = _update_sq_tail

    def _update_cq_head(
        self, at: int, values: Values, sq: Sq, cq: Cq, _rung: int, posted: list[Command]
    ) -> None:
        if values[0] != cq.id:
            return
        names = []
        for command in posted[: len(posted) - len(cq.posted)]:
            name = self._name(command)
            names.append(name)
            place = self._places.pop(f"cq {name}", None)
            if place is not None:
                self._cq_slots[place] = (name, "free")
            slot = self._places.pop(name, None)
            if slot is not None and self._sq_slots[slot] == (name, "fetched"):
                self._sq_slots[slot] = (name, "free")
        self._raised = False
        text = f"rings head {values[1]}" + (f": releases {', '.join(names)}" if names else "")
        self._add(at, "driver", text, [story.Arrow("driver", "device", text[6:])], sq, cq)

    _mmio_doorbell_cq = _update_cq_head

    def _command(
        self, at: int, values: Values, sq: Sq, cq: Cq, _rung: int, _posted: list[Command]
    ) -> None:
        cid, sqid, opcode = values
        if sqid != self._sqid:
            return
        # Without a number it was rung before the log begins.
        name = str(self._rung.popleft()) if self._rung else f"CID {cid:#x}"
        command = sq.flight[cid]
        self._numbers[command.fetched] = name
        slot = self._places.get(name)
        if slot is not None:
            self._sq_slots[slot] = (name, "fetched")
        arrows = [story.Arrow("sq", "device", name)]
        text = f"fetches {name} (CID {cid:#x}, opcode {opcode:#x})"
        self._add(at, "device", text, arrows, sq, cq)

    def _finished(
        self, at: int, values: Values, sq: Sq, cq: Cq, _rung: int, _posted: list[Command]
    ) -> None:
        cid, cqid, status = values
        if cqid != cq.id:
            return
        command = cq.finished[-1] if cq.finished and cq.finished[-1].finished == at else None
        if command and command.sq is not sq:
            return
        name = self._name(command) if command else f"CID {cid:#x}"
        text = f"finishes {name}" + (f" with status {status:#x}" if status else "")
        self._add(at, "storage", text, [], sq, cq)

    def _interrupt(
        self, at: int, _values: Values, sq: Sq, cq: Cq, _rung: int, posted: list[Command]
    ) -> None:
        new = list(cq.posted)[len(posted) :]
        if not new:
            return
        arrows = []
        if cq.head is not None:
            self._cq_tail = (cq.head + len(posted)) % self._cq_size
        for command in new:
            name = self._name(command)
            self._cq_slots[self._cq_tail] = (name, "posted")
            self._places[f"cq {name}"] = self._cq_tail
            self._cq_tail = (self._cq_tail + 1) % self._cq_size
            arrows.append(story.Arrow("device", "cq", name))
        self._raised = True
        text = f"posts {', '.join(self._name(command) for command in new)}, and says so"
        self._add(at, "device", text, arrows, sq, cq)

    _msix = _interrupt

    def _fetching_ends(
        self, at: int, values: Values, sq: Sq, cq: Cq, _rung: int, _posted: list[Command]
    ) -> None:
        if not values[0] and values[1]:
            self._add(at, "device", f"looks at SQ {sq.id}: no request is free", [], sq, cq)

    def _pool_at_post(
        self, at: int, values: Values, sq: Sq, cq: Cq, _rung: int, _posted: list[Command]
    ) -> None:
        text = (
            "posts an entry; no request is free"
            if values[0]
            else "posts an entry: a request is free"
        )
        self._add(at, "device", text, [story.Arrow("device", "cq", "an entry")], sq, cq)

    def _name(self, command: Command) -> str:
        return self._numbers.get(command.fetched, f"CID {command.cid:#x}")

    # Moments.

    def first(self) -> story.Moment:
        """What is known before the first one that is kept."""
        first = self._first or self.moments[0]
        text = "What went before is left out." if self.dropped else "Here the log begins."
        return msgspec.structs.replace(first, text=text, arrows=[], line=None, label="")

    def _add(
        self, at: int, actor: story.Actor, text: str, arrows: list[story.Arrow], sq: Sq, cq: Cq
    ) -> None:
        if len(self.moments) == self._most:
            self._first = self.moments[0]
            self.dropped += 1
        flight = [self._name(c) for c in sq.flight.values() if not c.parked]
        finished = [self._name(c) for c in cq.finished if c.sq is sq]
        posted = [self._name(c) for c in cq.posted if c.sq is sq]
        self.moments.append(
            story.Moment(
                number=0,
                label=f"line {at}",
                actor=actor,
                text=text,
                arrows=arrows,
                sq=story.Sq(
                    sq.id,
                    [story.SqSlot(name, state) for name, state in self._sq_slots],  # type: ignore[arg-type]
                    tail=sq.tail or 0,
                    tail_doorbell=sq.tail or 0,
                    head=sq.head,
                    known_head=None,
                ),
                cq=story.Cq(
                    cq.id,
                    [
                        story.CqSlot(name, phase=None, state=state)  # type: ignore[arg-type]
                        for name, state in self._cq_slots
                    ],
                    tail=self._cq_tail if cq.from_start else None,
                    phase=None,
                    head=cq.head or 0,
                    head_doorbell=cq.head or 0,
                ),
                pool=story.Pool(self._size if sq.from_start else None, flight, finished),
                wakeups=None,
                interrupt="raised" if self._raised else "none",
                outstanding=[*map(str, self._rung), *flight, *finished, *posted],
                line=at,
            )
        )
