"""Drivers that break one rule of queues and doorbells."""

from __future__ import annotations

import msgspec

from nvmelab.corpus.breaches.breach import Breach
from nvmelab.corpus.breaches.driving import memory, planted, ring_head, ring_tail, started, submit
from nvmelab.device.controller import Controller as Device
from nvmelab.device.queues import Request
from nvmelab.host.driver import Controller as Driver
from nvmelab.spec.admin import CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq, SetFeatures
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.features import Feature
from nvmelab.spec.nvm import Read


def tail_over_entries(nvme: Driver) -> None:
    """The tail is rung a whole ring further, over entries that are not fetched."""
    queue = started(nvme)
    storage = nvme.link.storage
    assert storage
    queue.sq.ring_each = False
    queue.read(slba=0)
    queue.read(slba=0)
    queue.sq.ring()
    ring_tail(nvme, queue.qid, (queue.sq.tail - 1) % 4)


def tail_outside(nvme: Driver) -> None:
    """The tail that is rung is no slot."""
    queue = started(nvme)
    ring_tail(nvme, queue.qid, 4)


def head_outside(nvme: Driver) -> None:
    """The head that is rung is no slot."""
    queue = started(nvme)
    ring_head(nvme, queue.cq.qid, 9)


def head_ahead(nvme: Driver) -> None:
    """The head that is rung releases entries that were not posted."""
    queue = started(nvme)
    ring_head(nvme, queue.cq.qid, (queue.cq.head + 2) % 4)


def head_of_nothing(nvme: Driver) -> None:
    """The head of the admin queue is rung past what was posted."""
    nvme.start()
    ring_head(nvme, 0, (nvme.admin.cq.head + 1) % nvme.admin.cq.entries)


def cid_twice(nvme: Driver) -> None:
    """Two outstanding commands have the same CID."""
    queue = started(nvme)
    storage = nvme.link.storage
    assert storage
    storage.hold = True
    queue.submit(Read(nsid=1, prp1=memory(nvme)), cid=7)
    nvme.link.settle()
    queue.sq.outstanding.clear()
    queue.submit(Read(nsid=1, prp1=memory(nvme)), cid=7)
    nvme.link.settle()
    storage.let_go()


def doorbell_of_nothing(nvme: Driver) -> None:
    """The tail doorbell of a queue that does not exist is written."""
    started(nvme)
    ring_tail(nvme, 5, 1)


def doorbell_of_no_cq(nvme: Driver) -> None:
    """The head doorbell of a queue that does not exist is written."""
    started(nvme)
    ring_head(nvme, 5, 1)


def rings_twice(nvme: Driver) -> None:
    """A doorbell is written again with its own value."""
    queue = started(nvme)
    ring_tail(nvme, queue.qid, queue.sq.tail)


def _create(nvme: Driver, *, number: bool = True, offset: int = 0, **changes: int) -> None:
    """A completion queue of 4 entries, with changes."""
    nvme.enable()
    if number:
        nvme.io_queues = nvme.set_number_of_queues(4)
    wanted = {"qid": 1, "qsize": 4, "prp1": memory(nvme) + offset, "ien": 1, **changes}
    submit(nvme, CreateIoCq(**wanted))


def queue_of_one_entry(nvme: Driver) -> None:
    """A completion queue of one entry is created."""
    _create(nvme, qsize=1)


def queue_beyond_mqes(nvme: Driver) -> None:
    """A completion queue is larger than CAP.MQES allows."""
    _create(nvme, qsize=nvme.cap.mqes + 1)


def queue_zero(nvme: Driver) -> None:
    """Completion queue 0 is created as an I/O queue."""
    _create(nvme, qid=0)


def queue_not_granted(nvme: Driver) -> None:
    """A completion queue is created beyond the number that was granted."""
    _create(nvme, qid=9)


def queue_twice(nvme: Driver) -> None:
    """A queue that exists is created again."""
    queue = started(nvme)
    submit(nvme, CreateIoCq(qid=queue.cq.qid, qsize=4, prp1=memory(nvme)))


def sq_without_cq(nvme: Driver) -> None:
    """A submission queue is created on a completion queue that does not exist."""
    nvme.start()
    submit(nvme, CreateIoSq(qid=1, qsize=4, prp1=memory(nvme), cqid=1))


def scattered_queue(nvme: Driver) -> None:
    """A queue is not contiguous, and CAP.CQR requires it."""
    _create(nvme, pc=0)


def unaligned_queue(nvme: Driver) -> None:
    """The base of a queue is not aligned to a page."""
    _create(nvme, offset=64)


def entry_size_unset(nvme: Driver) -> None:
    """I/O queues are created while CC.IOSQES and CC.IOCQES are 0."""
    nvme.start()
    nvme.write_cc(msgspec.structs.replace(nvme.cc, iosqes=0, iocqes=0))
    submit(nvme, CreateIoCq(qid=1, qsize=4, prp1=memory(nvme)))


def vector_beyond(nvme: Driver) -> None:
    """The interrupt vector of a queue is none of the function's."""
    _create(nvme, iv=nvme.link.vectors)


def queues_share_memory(nvme: Driver) -> None:
    """Two completion queues are in the same memory."""
    nvme.start(io_queues=4)
    base = memory(nvme)
    for qid in (1, 2):
        submit(nvme, CreateIoCq(qid=qid, qsize=4, prp1=base))


def cq_not_cleared(nvme: Driver) -> None:
    """A completion queue is created in memory that was not cleared."""
    nvme.start(io_queues=4)
    base = memory(nvme)
    nvme.link.memory.write(base, b"\xff" * 64)
    submit(nvme, CreateIoCq(qid=1, qsize=4, prp1=base))


def number_not_asked(nvme: Driver) -> None:
    """An I/O queue is created, and nobody has asked how many there may be."""
    _create(nvme, number=False)


def as_many_as_can_be_written(nvme: Driver) -> None:
    """The number of queues that is asked for is FFFFh, 0's based."""
    nvme.enable()
    submit(nvme, SetFeatures(fid=Feature.NUMBER_OF_QUEUES, value=0xFFFF_FFFF))


def number_after_queues(nvme: Driver) -> None:
    """The number of queues is set when there are I/O queues."""
    started(nvme)
    submit(nvme, SetFeatures(fid=Feature.NUMBER_OF_QUEUES, value=0))


def deletes_nothing(nvme: Driver) -> None:
    """A submission queue is deleted that does not exist."""
    nvme.start()
    submit(nvme, DeleteIoSq(qid=3))


def deletes_no_cq(nvme: Driver) -> None:
    """A completion queue is deleted that does not exist."""
    nvme.start()
    submit(nvme, DeleteIoCq(qid=3))


def deletes_cq_first(nvme: Driver) -> None:
    """A completion queue is deleted before its submission queue."""
    queue = started(nvme)
    submit(nvme, DeleteIoCq(qid=queue.cq.qid))


def pair_at_once(nvme: Driver) -> None:
    """A submission queue and its completion queue are created by one ring of the doorbell."""
    nvme.start(io_queues=4)
    nvme.admin.sq.ring_each = False
    nvme.admin.submit(CreateIoCq(qid=1, qsize=4, prp1=memory(nvme), ien=1))
    nvme.admin.submit(CreateIoSq(qid=1, qsize=4, prp1=memory(nvme), cqid=1))
    nvme.admin.sq.ring()


def pair_ended_at_once(nvme: Driver) -> None:
    """A completion queue is deleted without waiting for the end of its submission queue."""
    queue = started(nvme)
    nvme.admin.submit(DeleteIoSq(qid=queue.qid))
    nvme.admin.submit(DeleteIoCq(qid=queue.cq.qid))


def rings_before_completion(nvme: Driver) -> None:
    """A command is submitted to a queue whose creation is carried out and not completed."""
    nvme.start(io_queues=4)
    cq, base = nvme.create_cq(entries=4), memory(nvme)
    nvme.link.memory.write(base, Read(nsid=1, prp1=memory(nvme)).encode())
    nvme.admin.submit(CreateIoSq(qid=1, qsize=4, prp1=base, cqid=cq.qid))
    step = nvme.link.step
    assert step
    for _fetch_and_execute in range(2):
        step(lambda _count: 0)
    ring_tail(nvme, 1, 1)


class AcceptsBadCq(Device):
    """Says that a submission queue was created whose completion queue is none."""

    def finish(self, request: Request, status: int = 0) -> None:
        if request.sq.id == 0 and request.opcode == AdminOpcode.CREATE_IO_SQ:
            status = 0
        super().finish(request, status)


class AcceptsLateNumber(Device):
    """Lets the number of queues be set when there are I/O queues."""

    def finish(self, request: Request, status: int = 0) -> None:
        if request.sq.id == 0 and request.opcode == AdminOpcode.SET_FEATURES:
            status = 0
        super().finish(request, status)


BREACHES = [
    planted(rule, act)
    for rule, act in (
        ("doorbell.value", tail_over_entries),
        ("doorbell.value", tail_outside),
        ("doorbell.value", head_outside),
        ("doorbell.value", head_ahead),
        ("doorbell.value", head_of_nothing),
        ("sq.cid-in-use", cid_twice),
        ("doorbell.queue", doorbell_of_nothing),
        ("doorbell.queue", doorbell_of_no_cq),
        ("doorbell.repeated", rings_twice),
        ("queues.size", queue_of_one_entry),
        ("queues.size", queue_beyond_mqes),
        ("queues.identifier", queue_zero),
        ("queues.identifier", queue_not_granted),
        ("queues.identifier", queue_twice),
        ("queues.cq-exists", sq_without_cq),
        ("queues.contiguous", scattered_queue),
        ("queues.base", unaligned_queue),
        ("queues.entry-size", entry_size_unset),
        ("queues.vector", vector_beyond),
        ("queues.overlap", queues_share_memory),
        ("queues.cleared", cq_not_cleared),
        ("queues.number-first", number_not_asked),
        ("queues.number-requested", as_many_as_can_be_written),
        ("queues.number-late", number_after_queues),
        ("queues.deleted", deletes_nothing),
        ("queues.deleted", deletes_no_cq),
        ("queues.deletion-order", deletes_cq_first),
        ("queues.order", pair_at_once),
        ("queues.order", pair_ended_at_once),
        ("queues.order", rings_before_completion),
    )
] + [
    Breach("accepts-bad-cq", "queues.accepted", "both", sq_without_cq, AcceptsBadCq),
    Breach(
        "accepts-late-number",
        "queues.number-late-accepted",
        "both",
        number_after_queues,
        AcceptsLateNumber,
    ),
]
