"""Checks of Abort and of asynchronous events: commands that end in an unusual way, or for a long
time not at all."""

from __future__ import annotations

from nvmelab.host.buffers import Buffer
from nvmelab.host.errors import Stuck
from nvmelab.host.queues import Pending
from nvmelab.link.base import Storage
from nvmelab.spec.admin import Abort, GetFeatures, GetLogPage, Identify
from nvmelab.spec.commands import BROADCAST_NSID
from nvmelab.spec.events import EventType, SmartEvent
from nvmelab.spec.features import Feature
from nvmelab.spec.identify import Cns
from nvmelab.spec.logpages import TEMPERATURE_WARNING, LogPage, Smart
from nvmelab.spec.nvm import Read
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.queues import ENTRIES, usable
from nvmelab.suite.rings import load

PROBE = GetFeatures(fid=Feature.NUMBER_OF_QUEUES)
"""A command that every controller has and that moves no data."""
ROOM = 32
"""Admin commands that there is room for beside the Asynchronous Event Requests."""
PATTERN = 0xA5
LOWER = 1 << 20
"""THSEL of the lower temperature threshold, set to 0 K."""
ABORT = "Base 2.2, 5.1.1"
EVENTS = "Base 2.2, 5.1.2"


def quiet(bench: Bench) -> int:
    """Start the controller with room for all the Asynchronous Event Requests that it takes, and
    no event asked for that need not be. How many requests it takes."""
    nvme = bench.nvme
    limit = nvme.identify().aerl
    if limit + ROOM > nvme.admin.sq.entries:
        nvme.enable(sq_entries=limit + ROOM, cq_entries=limit + ROOM)
        nvme.io_queues = nvme.set_number_of_queues(16)
    nvme.set_feature(Feature.ASYNC_EVENT_CONFIGURATION, 0)
    return limit


def park(bench: Bench, requests: list[Pending], count: int) -> None:
    """Submit Asynchronous Event Requests until that many of `requests` are outstanding. What has
    happened before is told at once: it is read and forgotten."""
    nvme = bench.nvme
    for _ in range(6):
        requests[:] = [request for request in requests if not request.done]
        fresh = [nvme.async_event_request() for _ in range(count - len(requests))]
        requests += fresh
        nvme.run(PROBE)
        told = [request for request in requests if request.done]
        if not told:
            return
        for request in told:
            bench.expect(
                request.ok,
                f"with at most {count} Asynchronous Event Requests outstanding, one got the status "
                f"{request.status.label}",
                expected=f"AERL says that {nvme.identify().aerl} may be outstanding",
                ref=EVENTS,
            )
            forget(bench, request.check().dw0 >> 16 & 0xFF)
    bench.skip("the controller goes on reporting events")


def forget(bench: Bench, lid: int, *, retain: bool = False) -> None:
    """Read the beginning of a log page, which clears the events that it is of."""
    buffer = bench.nvme.buffer(512)
    command = GetLogPage(lid=lid, numd=128, rae=int(retain), nsid=BROADCAST_NSID, prp1=buffer.addr)
    bench.nvme.admin.submit(command, buffer=buffer).wait()


def held(bench: Bench, requests: list[Pending], when: str) -> None:
    """None of the requests was completed."""
    bench.nvme.run(PROBE)
    done = [request for request in requests if request.done]
    if done:
        entry = done[0].completion
        bench.expect(
            False,
            f"{len(done)} of {len(requests)} Asynchronous Event Requests were completed {when}: "
            f"{entry}",
            expected="a request is held until there is an event",
            ref=EVENTS,
        )


def ended(bench: Bench, pending: Pending, why: str) -> Pending:
    """Wait for a command; that it never ends is what the check is about."""
    try:
        return pending.wait()
    except Stuck as stuck:
        bench.expect(False, f"{why}, and the completion never came: {stuck}")
    return pending


def event(bench: Bench, request: Pending, why: str, wanted: tuple[int, int, int]) -> None:
    """The request is completed, with this event type, information and log page."""
    ended(bench, request, why)
    bench.expect(request.ok, f"{why}, and the request got the status {request.status.label}")
    dw0 = request.check().dw0
    seen = (dw0 & 7, dw0 >> 8 & 0xFF, dw0 >> 16 & 0xFF)
    bench.expect(
        seen == wanted,
        f"{why}, and the event is of type {seen[0]} with the information {seen[1]:#x} and the log "
        f"page {seen[2]:#x}",
        expected=f"type {wanted[0]}, information {wanted[1]:#x}, log page {wanted[2]:#x}",
    )


@check(
    "admin.event-requests",
    ref=EVENTS,
    expected="AERL + 1 Asynchronous Event Requests are held while everything else goes on; one "
    "more is refused with Asynchronous Event Request Limit Exceeded",
)
def event_requests(bench: Bench) -> None:
    """As many Asynchronous Event Requests as may be, other commands meanwhile, and one too many."""
    nvme, requests = bench.nvme, list[Pending]()
    limit = quiet(bench)
    park(bench, requests, limit)
    for number in range(2 * ROOM):
        nvme.run(PROBE if number % 4 else Identify(cns=Cns.CONTROLLER, prp1=nvme.buffer().addr))
    usable(bench, 1)
    held(bench, requests, "without an event")
    for _ in range(2):
        extra = nvme.async_event_request()
        why = f"with {limit} Asynchronous Event Requests outstanding (AERL), another was submitted"
        ended(bench, extra, why)
        bench.expect(
            extra.status == Status.ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED,
            f"{why}, and got the status {extra.status.label}",
        )
        held(bench, requests, "when one too many was submitted")


@check(
    "admin.event-abort",
    ref=f"{ABORT} and 5.1.2",
    expected="an Asynchronous Event Request is aborted, and then counts no more, or is not; the "
    "others stay",
)
def event_abort(bench: Bench) -> None:
    """Abort of Asynchronous Event Requests, the first, the last, and one between."""
    nvme, requests = bench.nvme, list[Pending]()
    limit = quiet(bench)
    for which in sorted({0, limit // 2, limit - 1}):
        park(bench, requests, limit)
        victim = requests[which]
        answer = nvme.abort(victim).check().dw0
        others = [request for request in requests if request is not victim]
        held(bench, others, "when another was aborted")
        if answer & 1:
            # A deferred abort is allowed, at any time.
            bench.expect(
                not victim.done or victim.status == Status.COMMAND_ABORT_REQUESTED,
                f"the Abort of an Asynchronous Event Request says that it was not aborted, and it "
                f"was completed with {victim.status.label if victim.done else ''}",
            )
        else:
            why = "the Abort of an Asynchronous Event Request says that it was aborted"
            ended(bench, victim, why)
            bench.expect(
                victim.status == Status.COMMAND_ABORT_REQUESTED,
                f"{why}, and its status is {victim.status.label}",
                expected="Command Abort Requested",
            )


@check(
    "admin.event-temperature",
    ref=f"{EVENTS}; 5.1.25.1.3 and 5.1.25.1.5",
    expected="a temperature past its threshold is reported once, until the SMART log is read",
)
def event_temperature(bench: Bench) -> None:
    """The upper temperature threshold moved below the temperature, with the event asked for."""
    nvme, requests = bench.nvme, list[Pending]()
    limit = quiet(bench)
    smart = Smart.decode(nvme.log_page(LogPage.SMART, 512))
    # Thresholds that somebody has left where the temperature is past them.
    high = smart.composite_temperature + 20
    nvme.set_feature(Feature.TEMPERATURE_THRESHOLD, high)
    if nvme.identify().wctemp:
        nvme.set_feature(Feature.TEMPERATURE_THRESHOLD, LOWER)
    smart = Smart.decode(nvme.log_page(LogPage.SMART, 512))
    if not smart.composite_temperature or smart.critical_warning & TEMPERATURE_WARNING:
        bench.skip(f"the composite temperature, {smart.composite_temperature} K, is past a limit")
    low = max(1, smart.composite_temperature - 10)
    count = min(2, limit)
    park(bench, requests, count)
    nvme.set_feature(Feature.ASYNC_EVENT_CONFIGURATION, TEMPERATURE_WARNING)
    held(bench, requests, "with no temperature past its threshold")
    nvme.set_feature(Feature.TEMPERATURE_THRESHOLD, low)

    def one() -> bool:
        nvme.admin.cq.service()
        return any(request.done for request in requests)

    why = f"the threshold is {low} K, at {smart.composite_temperature} K"
    bench.expect(
        bench.link.wait(one),
        f"{why}, and no event was reported to the {count} Asynchronous Event Requests",
    )
    first = next(request for request in requests if request.done)
    event(bench, first, why, (EventType.SMART, SmartEvent.TEMPERATURE_THRESHOLD, LogPage.SMART))
    requests.remove(first)
    nvme.set_feature(Feature.TEMPERATURE_THRESHOLD, low + 1)
    forget(bench, LogPage.SMART, retain=True)
    held(bench, requests, "while the first SMART event was not cleared")
    page = Smart.decode(nvme.log_page(LogPage.SMART, 512))
    bench.expect(
        page.critical_warning & TEMPERATURE_WARNING,
        f"{why}, and the critical warning of the SMART log is {page.critical_warning:#x}",
        expected="bit 1, temperature threshold condition, is set",
    )
    nvme.set_feature(Feature.TEMPERATURE_THRESHOLD, high)


def _said_no(bench: Bench, pending: Pending, what: str) -> None:
    """An Abort that had nothing to abort: it need not succeed, but must not say that it did it."""
    ended(bench, pending, f"an Abort of {what} was submitted")
    if pending.ok:
        dw0 = pending.check().dw0
        bench.expect(
            dw0 & 1,
            f"an Abort of {what} has dword 0 {dw0:#x}: it was aborted",
            expected="bit 0 of dword 0 is set: no immediate abort was performed",
        )


@check(
    "admin.abort-nothing",
    ref=f"{ABORT} and 5.1.1.2",
    expected="Abort of what does not exist says that nothing was aborted; more of them at once "
    "than ACL allows are carried out, or refused with Abort Command Limit Exceeded",
)
def abort_nothing(bench: Bench) -> None:
    """Abort of commands that were never submitted or are completed, and of queues not there."""
    nvme, most = bench.nvme, bench.nvme.identify().acl
    qpair = nvme.create_qpair(entries=ENTRIES)
    done = qpair.read(slba=0)
    done.check()
    targets = {
        "a command that was never submitted": (qpair.qid, 0xABCD),
        "a command that is completed": (qpair.qid, done.cid),
        "an admin command that was never submitted": (0, 0xABCD),
        "a command of an SQ that does not exist": (0xFFFF, 0),
    }
    if nvme.io_queues > 1:
        targets["a command of an SQ that was not created"] = (nvme.io_queues, 0)
    for what, (sqid, cid) in targets.items():
        _said_no(bench, nvme.admin.submit(Abort(sqid=sqid, aborted_cid=cid)), what)
        load(bench, [qpair], ENTRIES)
    aborts = [
        nvme.admin.submit(Abort(sqid=qpair.qid, aborted_cid=0xABCD))
        for _ in range(min(most + 4, ROOM - 2))
    ]
    for pending in aborts:
        what = f"a command that was never submitted, one of {len(aborts)} with ACL {most},"
        _said_no(bench, pending, what)
        bench.expect(
            pending.ok or len(aborts) > most or pending.status != _TOO_MANY,
            f"{len(aborts)} Aborts, with ACL {most}, and one got {pending.status.label}",
        )
    load(bench, [qpair], ENTRIES)


_TOO_MANY = Status.ABORT_COMMAND_LIMIT_EXCEEDED


@check(
    "admin.abort",
    ref=ABORT,
    expected="the command to abort is completed once: with Command Abort Requested if the Abort "
    "says so; no other command is aborted, and not the Abort itself",
)
def abort(bench: Bench) -> None:
    """Abort of a read whose completion the storage holds back, among others of the same CID."""
    storage = bench.storage()
    nvme = bench.nvme
    qpairs = [nvme.create_qpair(entries=ENTRIES) for _ in range(min(2, nvme.io_queues))]
    try:
        for round in range(3):
            storage.hold = True
            buffers = [nvme.buffer(512) for _ in range(3 * len(qpairs))]
            reads: list[Pending] = []
            for number, buffer in enumerate(buffers):
                read = Read(nsid=1, slba=32 * number, nlb=1, prp1=buffer.addr)
                qpair = qpairs[number % len(qpairs)]
                reads.append(qpair.submit(read, cid=100 + number // len(qpairs), buffer=buffer))
            if not bench.link.wait(lambda: storage.held() > 0):
                bench.skip("the device asks nothing of its storage")
            bench.link.settle()
            victim = reads[round * len(qpairs)]
            # The Abort has the CID of what it is to abort, on a queue of its own.
            command = Abort(sqid=victim.sq.qid, aborted_cid=victim.cid)
            answer = ended(
                bench,
                nvme.admin.submit(command, cid=victim.cid),
                "an Abort of a read that the storage holds back was submitted",
            )
            bench.expect(answer.ok, f"the Abort itself got the status {answer.status.label}")
            buffer = buffers[round * len(qpairs)]
            _finish(bench, storage, victim, buffer, not answer.check().dw0 & 1)
            _others(bench, [other for other in reads if other is not victim])
    finally:
        storage.hold = False
        while storage.held():
            storage.release()
    nvme.run(PROBE)
    for cq in [nvme.admin.cq, *nvme.cqs.values()]:
        entry = cq.peek()
        bench.expect(entry is None, f"everything is completed, and CQ {cq.qid} has {entry}")
    load(bench, qpairs, 2 * ENTRIES)


def _finish(bench: Bench, storage: Storage, victim: Pending, buffer: Buffer, aborted: bool) -> None:
    """Let the storage go on: what becomes of the command to abort is what the Abort has said."""
    says = f"the Abort says that the read was {'' if aborted else 'not '}aborted"
    if aborted:
        buffer.fill(PATTERN)
    storage.hold = False
    while storage.held():
        storage.release(bench.random.randrange(storage.held()))
    ended(bench, victim, says)
    allowed = [Status.COMMAND_ABORT_REQUESTED] if aborted else [Status.SUCCESS]
    if not aborted:
        allowed.append(Status.COMMAND_ABORT_REQUESTED)  # a deferred abort
    bench.expect(victim.status in allowed, f"{says}, and its status is {victim.status.label}")
    bench.link.settle()
    bench.expect(
        not aborted or buffer.read() == bytes([PATTERN]) * buffer.size,
        f"{says}, and its data was written to memory after that",
        expected="an immediate abort has no effect after the completion of the Abort",
        ref="Base 2.2, 5.1.1.1",
    )


def _others(bench: Bench, reads: list[Pending]) -> None:
    for read in reads:
        ended(bench, read, "a read beside the one that was to be aborted")
        bench.expect(
            read.ok,
            f"{read.label} on SQ {read.sq.qid} was not to be aborted, and got the status "
            f"{read.status.label}",
        )
