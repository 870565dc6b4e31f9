"""Rules about queues: entries and pointers, doorbells, creation and deletion."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from nvmelab.check.model import Command, Values
from nvmelab.check.rule import Rule
from nvmelab.spec.features import Feature
from nvmelab.spec.registers import CQE_SIZE, IOCQES, IOSQES, SQE_SIZE
from nvmelab.spec.status import Status

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    # Entries and pointers. The monitor finds these, and `explore.watch`.
    "sq.slot-in-use": Rule(
        "driver",
        "an entry is written only into a free slot of the submission queue, the next one",
        "Base 2.2, 3.3.1.2 (queue usage) and 3.3.1.5 (full)",
    ),
    "sq.tail": Rule(
        "driver",
        "the tail doorbell tells of entries that were written, and its value is a slot",
        "Base 2.2, 3.3.1.2 (queue usage)",
        ("mmio_doorbell_sq", "update_sq_tail"),
    ),
    "sq.cid-in-use": Rule(
        "driver",
        "no two outstanding commands of a queue have the same CID",
        "Base 2.2, 4.1.1 (CID)",
        ("command",),
    ),
    "cq.head": Rule(
        "driver",
        "the head doorbell releases entries that were posted, and its value is a slot",
        "Base 2.2, 3.3.1.2 (queue usage)",
        ("mmio_doorbell_cq", "update_cq_head"),
    ),
    "cq.taken-early": Rule(
        "driver",
        "only entries that were posted are consumed",
        "Base 2.2, 4.2.4 (phase tag)",
    ),
    "sq.fetched-early": Rule(
        "device",
        "only entries that the tail doorbell has told of are fetched, each once and in order",
        "Base 2.2, 3.3.1.2 (queue usage)",
        ("command",),
    ),
    "cq.overrun": Rule(
        "device",
        "nothing is posted while the completion queue has no free slot",
        "Base 2.2, 3.3.1.2.1 (completion queue flow control)",
        ("cqe",),
    ),
    "cq.slot": Rule(
        "device",
        "a completion is posted to the next slot of the completion queue",
        "Base 2.2, 3.3.1.2 (queue usage)",
        ("cqe",),
    ),
    "cq.phase": Rule(
        "device",
        "the phase tag of an entry is the inverse of what the slot had before",
        "Base 2.2, 4.2.4 (phase tag)",
        ("cqe",),
    ),
    "cq.sqhd": Rule(
        "device",
        "SQHD is the head of the submission queue when the entry is created: fetched entries only",
        "Base 2.2, 4.2.1 (SQHD)",
        ("cqe",),
    ),
    "cq.unknown-command": Rule(
        "device",
        "each fetched command is completed once, with its own SQID and CID",
        "Base 2.2, 4.2.1 (SQID, CID)",
        ("finished", "cqe"),
    ),
    "cq.wrong-queue": Rule(
        "device",
        "a completion is posted to the completion queue that its submission queue was created with",
        "Base 2.2, 3.3 (queue models) and 5.2.2 (CQID)",
        ("cqe",),
    ),
    "cq.other-stalled": Rule(
        "device",
        "a full completion queue holds up only the submission queues that use it",
        "Base 2.2, 3.3.1.2.1 (completion queue flow control)",
        ("create_cq",),
        kind="eventually",
    ),
    "cq.after-deletion": Rule(
        "device",
        "nothing is posted for the commands of a submission queue that was deleted",
        "Base 2.2, 5.2.4 (Delete I/O Submission Queue)",
        ("cqe",),
    ),
    "cq.status": Rule(
        "device",
        "a command that is as it should be succeeds",
        "Base 2.2, 4.2.3 (status)",
    ),
    # Doorbells.
    "doorbell.queue": Rule(
        "driver",
        "a doorbell is written only for a queue that exists",
        "Base 2.2, 5.1.2.1 (Invalid Doorbell Register)",
        ("mmio_doorbell_sq", "mmio_doorbell_cq", "ub_db_wr_invalid_sq", "ub_db_wr_invalid_cq"),
    ),
    "doorbell.value": Rule(
        "driver",
        "the value of a doorbell is a slot of its queue",
        "Base 2.2, 5.1.2.1 (Invalid Doorbell Write Value)",
        ("mmio_doorbell_sq", "mmio_doorbell_cq", "update_sq_tail", "update_cq_head"),
    ),
    "doorbell.repeated": Rule(
        "driver",
        "a doorbell is not written with the value that it has",
        "Base 2.2, 5.1.2.1 (Invalid Doorbell Write Value)",
        ("mmio_doorbell_sq", "mmio_doorbell_cq"),
        "note",
    ),
    # Creation and deletion. A command that cannot be is the driver's fault, to accept it the
    # device's.
    "queues.identifier": Rule(
        "driver",
        "QID of a new queue is free, not 0, and one of the queues that were granted",
        "Base 2.2, 5.2.1 and 5.2.2 (QID)",
        ("create_sq", "create_cq"),
    ),
    "queues.size": Rule(
        "driver",
        "a new queue has at least 2 entries and at most CAP.MQES + 1",
        "Base 2.2, 5.2.1 and 5.2.2 (QSIZE), 3.1.4.1 (CAP.MQES)",
        ("create_sq", "create_cq"),
    ),
    "queues.cq-exists": Rule(
        "driver",
        "a submission queue is created on an I/O completion queue that exists",
        "Base 2.2, 5.2.2 (CQID)",
        ("create_sq",),
    ),
    "queues.contiguous": Rule(
        "driver",
        "a queue is physically contiguous (PC is 1) where CAP.CQR requires it",
        "Base 2.2, 5.2.1 and 5.2.2 (PC), 3.1.4.1 (CAP.CQR)",
        ("create_sq", "create_cq"),
    ),
    "queues.base": Rule(
        "driver",
        "the base of a contiguous queue is aligned to the memory page",
        "Base 2.2, 5.2.1 and 5.2.2 (PRP1)",
        ("create_sq", "create_cq"),
    ),
    "queues.entry-size": Rule(
        "driver",
        "CC.IOSQES and CC.IOCQES are set before I/O queues are created",
        "Base 2.2, 3.1.4.5 (CC.IOSQES, CC.IOCQES)",
        ("create_sq", "create_cq"),
    ),
    "queues.vector": Rule(
        "driver",
        "the interrupt vector of a completion queue is one of the function's",
        "NVMe over PCIe Transport 1.2, 3.2 (interrupt vector)",
        ("create_cq",),
    ),
    "queues.overlap": Rule(
        "driver",
        "the memory of a queue is not that of another one",
        "Base 2.2, 3.3.1.2 (derived: each queue has slots of its own)",
        ("create_sq", "create_cq"),
    ),
    "queues.cleared": Rule(
        "driver",
        "the phase tags of a new completion queue are 0",
        "Base 2.2, 4.2.4 (phase tag)",
        ("create_cq", "cq_not_cleared"),
        "note",  # Linux clears them after that, before it submits anything
    ),
    "queues.number-first": Rule(
        "driver",
        "the number of queues is agreed on (Set Features, 07h) before I/O queues are created",
        "Base 2.2, 3.5.1 (initialization)",
        ("create_cq",),
        "note",
    ),
    "queues.number-requested": Rule(
        "driver",
        "at most 65,535 queues of a kind are asked for: NCQR and NSQR, 0's based, are not FFFFh",
        "Base 2.2, 5.1.25.2.1 (NCQR, NSQR)",
        ("set_feature",),
    ),
    "queues.number-late": Rule(
        "driver",
        "the number of queues is not set once an I/O queue was created",
        "Base 2.2, 5.1.25.2.1 (Number of Queues)",
        ("set_feature",),
    ),
    "queues.number-late-accepted": Rule(
        "device",
        "Set Features, Number of Queues is refused once an I/O queue was created",
        "Base 2.2, 5.1.25.2.1 (Number of Queues)",
        ("set_feature",),
    ),
    "queues.deleted": Rule(
        "driver",
        "a queue that is deleted exists, and is not queue 0",
        "Base 2.2, 5.2.3 and 5.2.4 (QID)",
        ("del_sq", "del_cq"),
    ),
    "queues.deletion-order": Rule(
        "driver",
        "a completion queue is deleted after its submission queues",
        "Base 2.2, 5.2.3 (Delete I/O Completion Queue)",
        ("del_cq",),
    ),
    "queues.accepted": Rule(
        "device",
        "what must be refused is: a CQID that is none, a CQ that is not contiguous, entry sizes "
        "that are not set, the deletion of a CQ that has SQs",
        "Base 2.2, 5.2.1 to 5.2.3 and 3.1.4.5 (CC.IOSQES, CC.IOCQES)",
        ("create_sq", "create_cq", "del_sq", "del_cq"),
    ),
    "queues.refused": Rule(
        "device",
        "a Create or Delete command is not refused for what it does right",
        "Base 2.2, 5.2.1 to 5.2.4",
        ("create_sq", "create_cq", "del_sq", "del_cq"),
    ),
}


class Flaw(NamedTuple):
    """Something about a command that may be wrong. `wrong` is None where nobody can know."""

    rule: str
    wrong: bool | None
    statuses: tuple[Status, ...]
    """The statuses that refuse it."""
    text: str
    tolerable: bool = False
    """A device need not refuse it: the specification says `should`, or nothing."""


_ID = (Status.INVALID_QUEUE_IDENTIFIER,)
_SIZE = (Status.INVALID_QUEUE_SIZE,)
_CQ = (Status.COMPLETION_QUEUE_INVALID, Status.INVALID_QUEUE_IDENTIFIER)
_FIELD = (Status.INVALID_FIELD_IN_COMMAND,)
_BASE = (Status.PRP_OFFSET_INVALID, Status.INVALID_FIELD_IN_COMMAND)
_VECTOR = (Status.INVALID_INTERRUPT_VECTOR, Status.INVALID_FIELD_IN_COMMAND)
_ORDER = (Status.INVALID_QUEUE_DELETION,)


_OF_OTHERS = (
    *("queues.identifier", "queues.cq-exists", "queues.deleted", "queues.deletion-order"),
    "queues.overlap",
)
"""Rules about a command for a queue that depend on which other queues there are."""


class Queues:
    """Looks at doorbells that cannot be, and at the commands that make and end queues."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._granted: int | None = None
        """I/O queues of one kind that may be, if it was agreed on."""
        self._created = 0
        """The line that created an I/O queue since the last reset."""
        monitor.answered.append(self._answered)
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "ub_db_wr_invalid_sq": self._no_sq,
            "ub_db_wr_invalid_cq": self._no_cq,
            "ub_db_wr_invalid_sqtail": self._bad_tail,
            "ub_db_wr_invalid_cqhead": self._bad_head,
            "mmio_doorbell_sq": self._tail,
            "mmio_doorbell_cq": self._head,
            "cq_not_cleared": self._not_cleared,
            "number_of_queues": self._number,
            "started": self._begin,
            "stopped": self._begin,
            "reset": self._begin,
        }

    def _begin(self, _at: int, _values: Values) -> None:
        self._granted = None
        self._created = 0

    # Doorbells.

    def _no_sq(self, at: int, values: Values) -> None:
        if not self._monitor.down:
            text = f"the tail doorbell of SQ {values[0]}, which is none"
            self._monitor.find("doorbell.queue", text, at)

    def _no_cq(self, at: int, values: Values) -> None:
        if not self._monitor.down:
            text = f"the head doorbell of CQ {values[0]}, which is none"
            self._monitor.find("doorbell.queue", text, at)

    def _bad_tail(self, at: int, values: Values) -> None:
        sq = self._monitor.sqs.get(values[0])
        text = f"tail {values[1]} for SQ {values[0]}, which cannot be"
        if sq and sq.entries and values[1] >= sq.entries:
            text += f": the queue has {sq.entries} entries"
        elif sq and sq.from_start and sq.entries and sq.head is not None and sq.tail is not None:
            free = sq.entries - 1 - (sq.tail - sq.head) % sq.entries
            text += f": it was {sq.tail}, with {_entries(free)} free"
        self._monitor.find("doorbell.value", text, at)

    def _bad_head(self, at: int, values: Values) -> None:
        cq = self._monitor.cqs.get(values[0])
        text = f"head {values[1]} for CQ {values[0]}, which cannot be"
        if cq and cq.entries and values[1] >= cq.entries:
            text += f": the queue has {cq.entries} entries"
        elif cq and cq.from_start and self._monitor.exact:
            text += f": it was {cq.head}, with {_entries(len(cq.posted))} posted"
        self._monitor.find("doorbell.value", text, at)

    def _tail(self, at: int, values: Values) -> None:
        sq = self._monitor.sqs.get(values[0])
        if sq and sq.from_start and sq.tail == values[1] and not self._monitor.shadows:
            text = f"tail {values[1]} of SQ {values[0]} is rung, which is its tail"
            self._monitor.find("doorbell.repeated", text, at)

    def _head(self, at: int, values: Values) -> None:
        cq = self._monitor.cqs.get(values[0])
        if cq and cq.from_start and cq.head == values[1] and not self._monitor.shadows:
            text = f"head {values[1]} of CQ {values[0]} is rung, which is its head"
            self._monitor.find("doorbell.repeated", text, at)

    # Creation and deletion.

    def _not_cleared(self, at: int, values: Values) -> None:
        text = f"slot {values[1]} of CQ {values[0]} has phase tag 1 when the queue is created"
        self._monitor.find("queues.cleared", text, at)

    def _answered(self, at: int, command: Command, status: int) -> None:
        """A Create, Delete or Set Features command is done."""
        if command.asks is None or not command.sq.from_start:
            return  # without the beginning nobody knows which queues there are
        name, values = command.asks
        if name == "set_feature":
            self._feature(at, command, values, status)
            return
        if name == "create_sq":
            flaws = self._flaws_of_sq(values)
        elif name == "create_cq":
            flaws = self._flaws_of_cq(values)
        elif name in ("del_sq", "del_cq"):
            flaws = self._flaws_of_deletion(name, values[0])
        else:
            return
        self._judge(at, command, status, flaws)
        if name.startswith("create") and not status:
            self._number_first(at, command)
            self._created = self._created or at

    def _judge(self, at: int, command: Command, status: int, flaws: list[Flaw]) -> None:
        """Whose fault the answer is. A command may be refused for whatever is wrong with it."""
        find, lines = self._monitor.find, (command.fetched, at)
        wrong = [flaw for flaw in flaws if flaw.wrong]
        for flaw in wrong:
            # That it succeeds speaks for a queue that some missing line has made, or ended.
            doubtful = not status and flaw.rule in _OF_OTHERS
            (self._monitor.contradicts if doubtful else find)(flaw.rule, flaw.text, *lines)
        if not status:
            for flaw in wrong:
                if not flaw.tolerable:
                    self._monitor.contradicts(
                        "queues.accepted", f"{flaw.text}: it succeeds", *lines
                    )
            return
        if wrong or status == Status.INVALID_FIELD_IN_COMMAND:
            return  # which may be said of fields that nothing is known of
        blamed = [flaw for flaw in flaws if status in flaw.statuses]
        if blamed and all(flaw.wrong is False for flaw in blamed):
            text = f"{blamed[0].text}: refused with {Status(status).label}"
            find("queues.refused", text, *lines)

    def _flaws_of_sq(self, values: Values) -> list[Flaw]:
        base, sqid, cqid, qsize, qflags = values
        monitor = self._monitor
        cq_exists = cqid != 0 and cqid in monitor.cqs and monitor.cqs[cqid].from_start
        return [
            self._identifier("SQ", sqid, used=sqid in monitor.sqs),
            Flaw("queues.cq-exists", not cq_exists, _CQ, f"SQ {sqid} on CQ {cqid}"),
            *self._common(f"SQ {sqid}", base, qsize, qflags, SQE_SIZE, (16, IOSQES)),
        ]

    def _flaws_of_cq(self, values: Values) -> list[Flaw]:
        base, cqid, vector, qsize, qflags, ien = values
        monitor = self._monitor
        beyond = bool(ien and vector >= monitor.offer.vectors) if monitor.offer else None
        return [
            self._identifier("CQ", cqid, used=cqid in monitor.cqs),
            Flaw(
                "queues.vector", beyond, _VECTOR, f"CQ {cqid} with vector {vector}", tolerable=True
            ),
            *self._common(f"CQ {cqid}", base, qsize, qflags, CQE_SIZE, (20, IOCQES)),
        ]

    def _identifier(self, kind: str, qid: int, *, used: bool) -> Flaw:
        offer = self._monitor.offer
        most = self._granted or (offer.io_queues if offer else None)
        wrong = True if qid == 0 or used else None if most is None else qid > most
        said = " again" if used else f" of {most}" if most is not None and qid > most else ""
        return Flaw("queues.identifier", wrong, _ID, f"{kind} {qid}{said}", tolerable=True)

    def _common(
        self,
        name: str,
        base: int,
        qsize: int,
        qflags: int,
        entry: int,
        field: tuple[int, int],
    ) -> list[Flaw]:
        monitor = self._monitor
        entries = qsize + 1
        most = monitor.offer.mqes if monitor.offer else None
        large = True if entries < 2 else None if most is None else entries > most
        scattered = None if monitor.offer is None else not qflags & 1
        size = monitor.page_size
        unaligned = None if size is None else bool(qflags & 1 and base % size)
        shift, wanted = field
        unset = None if monitor.cc is None else monitor.cc >> shift & 0xF != wanted
        sizes = f"{name} while CC is {monitor.cc or 0:#x}"
        other = self._overlapped(base, entries * entry) if qflags & 1 else ""
        overlap = f"{name} at {base:#x}, in the memory of {other}"
        return [
            Flaw("queues.size", large, _SIZE, f"{name} of {entries} entries", tolerable=True),
            Flaw(
                "queues.contiguous",
                scattered,
                _FIELD,
                f"{name} with QFLAGS {qflags:#x}",
                tolerable=name.startswith("SQ"),
            ),
            Flaw("queues.base", unaligned, _BASE, f"{name} at {base:#x}", tolerable=True),
            Flaw("queues.entry-size", unset, (*_SIZE, *_FIELD), sizes),
            Flaw("queues.overlap", bool(other), (), overlap, tolerable=True),
        ]

    def _overlapped(self, base: int, length: int) -> str:
        """The queue that has some of that memory."""
        for name, start, end in self._monitor.memory_of_queues():
            if base < end and start < base + length:
                return name
        return ""

    def _flaws_of_deletion(self, name: str, qid: int) -> list[Flaw]:
        monitor = self._monitor
        queues = monitor.sqs if name == "del_sq" else monitor.cqs
        kind = "SQ" if name == "del_sq" else "CQ"
        known = qid in queues and queues[qid].from_start
        exists = qid != 0 and known
        flaws = [
            Flaw("queues.deleted", not exists, _ID, f"{kind} {qid} is deleted", tolerable=True)
        ]
        if name == "del_cq" and exists:
            bound = [sq.id for sq in monitor.sqs.values() if sq.cq is monitor.cqs[qid]]
            text = f"CQ {qid} is deleted" + (f", which has SQ {bound[0]}" if bound else "")
            flaws.append(Flaw("queues.deletion-order", bool(bound), _ORDER, text))
        return flaws

    def _feature(self, at: int, command: Command, values: Values, status: int) -> None:
        fid, cdw11 = values
        if fid != Feature.NUMBER_OF_QUEUES:
            return
        if 0xFFFF in (cdw11 >> 16, cdw11 & 0xFFFF):
            text = f"65536 queues are asked for (CDW11 {cdw11:#x})"
            self._monitor.find("queues.number-requested", text, command.fetched, at)
        if self._created:
            text = "the number of queues is set when there was an I/O queue already"
            self._monitor.find("queues.number-late", text, self._created, command.fetched)
            if not status:
                self._monitor.find("queues.number-late-accepted", f"{text}: it succeeds", at)

    def _number(self, _at: int, values: Values) -> None:
        """As many as were granted of either kind: which count is whose has been printed wrong."""
        if not self._created:
            self._granted = max(values[2:])

    def _number_first(self, at: int, command: Command) -> None:
        if self._granted is None and not self._created:
            text = "an I/O queue is created, and nobody has asked how many there may be"
            self._monitor.find("queues.number-first", text, command.fetched, at)


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count or 'no'} entries"
