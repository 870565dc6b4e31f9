"""Checks of doorbell writes that cannot mean anything: what is reported, and that nothing else is
harmed.

That a value is out of a queue's range is reported where a request for events is outstanding. The
rest of what the specification lists is a "possible cause" of that report: it is judged only if it
comes. What becomes of the queue itself is left open, but that it can be deleted and created anew.
"""

from __future__ import annotations

from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Pending
from nvmelab.spec.events import ErrorEvent, EventType
from nvmelab.spec.logpages import LogPage
from nvmelab.suite.base import Bench, check
from nvmelab.suite.events import EVENTS, PROBE, event, forget, held, park, quiet
from nvmelab.suite.queues import ENTRIES, usable
from nvmelab.suite.rings import load

USAGE = "Base 2.2, 3.3.1.2"
LAST = 0xFFFF

Report = tuple[int, int, int]
BAD_VALUE: Report = (
    EventType.ERROR,
    ErrorEvent.INVALID_DOORBELL_VALUE,
    LogPage.ERROR_INFORMATION,
)
BAD_REGISTER: Report = (
    EventType.ERROR,
    ErrorEvent.INVALID_DOORBELL_REGISTER,
    LogPage.ERROR_INFORMATION,
)


def _bad_values(bench: Bench) -> list[int]:
    """Values outside of a queue of ENTRIES entries."""
    return [ENTRIES, ENTRIES + 1, bench.random.randint(ENTRIES + 2, LAST - 1), LAST]


def _pair(bench: Bench) -> Qpair:
    """A queue pair that has worked: its pointers are not 0."""
    qpair = bench.nvme.create_qpair(entries=ENTRIES)
    load(bench, [qpair], bench.random.randint(1, ENTRIES + 2))
    return qpair


def _bystander(bench: Bench) -> Qpair | None:
    """A queue pair that must not be harmed, if there can be another one."""
    return bench.nvme.create_qpair(entries=4) if bench.nvme.io_queues > 1 else None


def _unharmed(bench: Bench, other: Qpair | None, what: str) -> None:
    """The admin queue and the other queue go on, and no failure is signalled."""
    nvme = bench.nvme
    csts = nvme.csts
    bench.expect(not csts.cfs and csts.rdy, f"after {what}, CSTS is {csts}")
    nvme.run(PROBE)
    if other:
        load(bench, [other], 7)


def _again(bench: Bench, qpair: Qpair) -> None:
    """The queue pair is deleted, and created and used once more."""
    qid = qpair.qid
    bench.nvme.delete_qpair(qpair)
    usable(bench, qid)


def _write(bench: Bench, index: int, value: int) -> None:
    bench.nvme.doorbells.write(index, value)


def _out_of_range(bench: Bench, offset: int, what: str) -> None:
    """Each bad value into the doorbell of a queue, with a request for events outstanding."""
    count = min(2, quiet(bench))
    other, requests = _bystander(bench), list[Pending]()
    for value in _bad_values(bench):
        qpair = _pair(bench)
        park(bench, requests, count)
        _write(bench, 2 * qpair.qid + offset, value)
        why = f"{value:#x} was written to the {what} doorbell of a queue of {ENTRIES} entries"
        _one_of(bench, requests, why)
        held(bench, requests, f"after one event, when {value:#x} had been written to a doorbell")
        _unharmed(bench, other, why)
        _again(bench, qpair)
        forget(bench, LogPage.ERROR_INFORMATION)


def _one_of(bench: Bench, requests: list[Pending], why: str) -> None:
    """One of the requests is completed with the event, and no longer among them."""

    def told() -> bool:
        bench.nvme.admin.cq.service()
        return any(request.done for request in requests)

    bench.expect(
        bench.link.wait(told),
        f"{why}, with {len(requests)} Asynchronous Event Requests outstanding, and no event came",
    )
    request = next(request for request in requests if request.done)
    requests.remove(request)
    event(bench, request, why, BAD_VALUE)


@check(
    "doorbells.tail",
    ref=f"{USAGE} and 5.1.2",
    expected="an Invalid Doorbell Write Value event, once; other queues go on, and the queue can "
    "be deleted and created again",
)
def tail(bench: Bench) -> None:
    """Tails outside of a submission queue, while a request for events is outstanding."""
    _out_of_range(bench, 0, "tail")


@check(
    "doorbells.head",
    ref=f"{USAGE} and 5.1.2",
    expected="an Invalid Doorbell Write Value event, once; other queues go on, and the queue can "
    "be deleted and created again",
)
def head(bench: Bench) -> None:
    """Heads outside of a completion queue, while a request for events is outstanding."""
    _out_of_range(bench, 1, "head")


@check(
    "doorbells.event-once",
    ref=f"{EVENTS} (masking)",
    expected="error events are masked after the first, until the error log is read with RAE 0",
)
def event_once(bench: Bench) -> None:
    """Several bad tails with two requests outstanding, the error log read with and without RAE."""
    if quiet(bench) < 2:
        bench.skip("AERL allows one Asynchronous Event Request")
    requests: list[Pending] = []

    def bad_tail() -> None:
        qpair = _pair(bench)
        _write(bench, 2 * qpair.qid, ENTRIES)
        bench.nvme.run(PROBE)
        _again(bench, qpair)

    park(bench, requests, 2)
    bad_tail()
    _one_of(bench, requests, "a bad value was written to a tail doorbell")
    bad_tail()
    held(bench, requests, "by a second error event, while the first was not cleared")
    forget(bench, LogPage.ERROR_INFORMATION, retain=True)
    bad_tail()
    held(bench, requests, "by an error event after the log had been read with RAE 1")
    forget(bench, LogPage.ERROR_INFORMATION)
    bad_tail()
    # Or by one of those before, which the controller may have kept.
    _one_of(bench, requests, "a bad value was written to a tail doorbell, after the log was read")


def _if_told(bench: Bench, requests: list[Pending], why: str, *allowed: Report) -> None:
    """An event may come, and if so, is one of these."""
    bench.link.settle()
    bench.nvme.run(PROBE)
    for request in [request for request in requests if request.done]:
        requests.remove(request)
        dw0 = request.check().dw0
        seen = (dw0 & 7, dw0 >> 8 & 0xFF, dw0 >> 16 & 0xFF)
        bench.expect(
            seen in allowed,
            f"{why}, and the event is of type {seen[0]} with the information {seen[1]:#x} and the "
            f"log page {seen[2]:#x}",
            expected=f"no event, or one with these: {', '.join(map(str, allowed))}",
            ref=EVENTS,
        )
        forget(bench, LogPage.ERROR_INFORMATION)


def _missing(bench: Bench) -> list[int]:
    """Identifiers of queues that could exist: one that was deleted, and one never created."""
    qpair = _pair(bench)
    bench.nvme.delete_qpair(qpair)
    return sorted({qpair.qid, bench.nvme.io_queues})


@check(
    "doorbells.missing-queue",
    ref=f"{EVENTS} (Write to Invalid Doorbell Register)",
    expected="a doorbell of a queue that does not exist is ignored, and reported as Write to "
    "Invalid Doorbell Register if at all; the queue works when it is created",
)
def missing_queue(bench: Bench) -> None:
    """Doorbells of queues that were deleted or never created, then the queues themselves."""
    count = min(2, quiet(bench))
    other, requests = _bystander(bench), list[Pending]()
    used = {other.qid} if other else set[int]()
    for qid in [qid for qid in _missing(bench) if qid not in used]:
        for offset, what in ((0, "tail"), (1, "head")):
            for value in (1, bench.random.randint(2, LAST)):
                park(bench, requests, count)
                _write(bench, 2 * qid + offset, value)
                why = f"{value:#x} was written to the {what} doorbell of queue {qid}, which does "
                why += "not exist"
                _if_told(bench, requests, why, BAD_REGISTER)
                _unharmed(bench, other, why)
        usable(bench, qid)


@check(
    "doorbells.without-request",
    ref=f"{USAGE} and 5.1.2",
    expected="without a request for events, bad doorbell writes harm no other queue, and the queue "
    "can be deleted and created again",
)
def without_request(bench: Bench) -> None:
    """Bad values and missing queues, many times, with no request for events; then one request."""
    quiet(bench)
    other, requests = _bystander(bench), list[Pending]()
    values = [*_bad_values(bench), *_bad_values(bench)]
    for offset, what in ((0, "tail"), (1, "head")):
        qpair = _pair(bench)
        for value in values:
            _write(bench, 2 * qpair.qid + offset, value)
        _unharmed(bench, other, f"bad values written to a {what} doorbell")
        _again(bench, qpair)
    for qid in _missing(bench):
        if other is None or qid != other.qid:
            for value in values:
                _write(bench, 2 * qid, value)
                _write(bench, 2 * qid + 1, value)
            _unharmed(bench, other, f"values written to the doorbells of queue {qid}")
            usable(bench, qid)
    why = "bad values were written to doorbells"
    requests.append(bench.nvme.async_event_request())
    _if_told(bench, requests, why, BAD_VALUE, BAD_REGISTER)
    for _ in range(3):
        _unharmed(bench, other, why)


@check(
    "doorbells.head-beyond",
    ref=f"{USAGE} and 5.1.2",
    expected="a head that releases more than was posted harms no other queue, and is reported as "
    "Invalid Doorbell Write Value if at all; the queue can be deleted and created again",
)
def head_beyond(bench: Bench) -> None:
    """Heads beyond the last completion that was posted, on an empty and on a filled queue."""
    count = min(2, quiet(bench))
    other, requests = _bystander(bench), list[Pending]()
    for posted in (0, 1, ENTRIES - 2):
        for more in sorted({1, ENTRIES - 1 - posted}):
            qpair = bench.nvme.create_qpair(entries=ENTRIES, release="held")
            _complete(bench, qpair, posted)
            park(bench, requests, count)
            value = (posted + more) % ENTRIES
            _write(bench, 2 * qpair.qid + 1, value)
            why = f"a CQ head of {value} was written, with {posted} completions posted"
            _if_told(bench, requests, why, BAD_VALUE)
            _unharmed(bench, other, why)
            _again(bench, qpair)


def _complete(bench: Bench, qpair: Qpair, count: int) -> None:
    """That many completions, reaped and not released."""
    buffer = bench.nvme.buffer(512)
    reads = [qpair.read(slba=number, buffer=buffer) for number in range(count)]
    for read in reads:
        read.check()
