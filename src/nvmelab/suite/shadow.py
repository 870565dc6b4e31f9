"""Checks of shadow doorbells: Doorbell Buffer Config and EventIdx.

The driver writes a doorbell register only when its value passes the EventIdx, which is the least
that a device may count on (Base 2.2, Annex B.5.1).
"""

from __future__ import annotations

from nvmelab.host.qpair import Qpair
from nvmelab.spec.admin import DoorbellBufferConfig
from nvmelab.spec.identify import OACS_DOORBELL_BUFFER_CONFIG
from nvmelab.spec.registers import IOCQES, IOSQES, Cc
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.rings import fits, load

CONFIG = "Base 2.2, 5.2.5"
PROTOCOL = "Base 2.2, Annex B.5.1"
_PAGE = 4096


def _begin(bench: Bench) -> None:
    """Have shadow doorbells, or skip."""
    if not bench.nvme.identify().oacs & OACS_DOORBELL_BUFFER_CONFIG:
        bench.skip("the controller has no Doorbell Buffer Config (OACS bit 8)")
    bench.nvme.enable_shadow_doorbells()


@check(
    "shadow.bad-pages",
    ref=CONFIG,
    expected="buffers that are not page aligned are refused, and doorbells work as before",
)
def bad_pages(bench: Bench) -> None:
    """Doorbell Buffer Config with each of its two addresses off by some bytes."""
    if not bench.nvme.identify().oacs & OACS_DOORBELL_BUFFER_CONFIG:
        bench.skip("the controller has no Doorbell Buffer Config (OACS bit 8)")
    pages = bench.nvme.pool.zeroed(3 * _PAGE)
    for prp1, prp2 in ((pages + 8, pages + 2 * _PAGE), (pages, pages + _PAGE + 512)):
        done = bench.nvme.admin.submit(DoorbellBufferConfig(prp1=prp1, prp2=prp2)).wait()
        bench.expect(
            done.status in (Status.INVALID_FIELD_IN_COMMAND, Status.PRP_OFFSET_INVALID),
            f"PRP1 {prp1:#x}, PRP2 {prp2:#x}: {done.status.label}",
        )
    load(bench, [bench.nvme.create_qpair(entries=min(4, bench.nvme.cap.mqes))], 20)


@check(
    "shadow.load",
    ref=PROTOCOL,
    expected="every command completes, in queues of 2 to 9, 16 and 64 entries, with both flow "
    "controls",
)
def shadow_load(bench: Bench) -> None:
    """Queues of all sizes, driven through shadow doorbells."""
    _begin(bench)
    for entries in (2, 3, 4, 5, 9, 16, 64):
        for cq_entries in (entries, max(2, entries // 2)):
            if fits(bench.nvme, entries):
                qpair = bench.nvme.create_qpair(
                    entries=entries,
                    cq_entries=cq_entries,
                    flow="sqhd" if entries % 2 else "inflight",
                )
                load(bench, [qpair], 3 * entries + 1)
                bench.nvme.delete_qpair(qpair)


@check(
    "shadow.one-by-one",
    ref=PROTOCOL,
    expected="a command that follows a pause is seen: by then EventIdx says that the device sleeps",
)
def one_by_one(bench: Bench) -> None:
    """Single commands with a pause before each, and pairs without one, over many wraps."""
    _begin(bench)
    for entries in (2, 3, 5):
        if not fits(bench.nvme, entries):
            continue
        qpair = bench.nvme.create_qpair(entries=entries, release="entry")
        buffer = bench.nvme.buffer(512)
        for number in range(4 * entries + 1):
            bench.link.settle()
            for _ in range(min(1 + number % 2, entries - 1)):
                qpair.read(slba=0, buffer=buffer)
            qpair.wait_all()
        bench.nvme.delete_qpair(qpair)


@check(
    "shadow.race",
    ref=PROTOCOL + " (derived: a tail stored before the device sleeps is seen, or rung)",
    expected="a command that is stored at any moment while the device goes to sleep is not lost",
)
def race(bench: Bench) -> None:
    """A second command stored after each single step that the device takes with the first."""
    _begin(bench)
    step = bench.link.step
    qpair = bench.nvme.create_qpair(
        entries=min(4, bench.nvme.cap.mqes), cq_entries=min(8, bench.nvme.cap.mqes)
    )
    buffer = bench.nvme.buffer(512)
    for pause in range(20):
        qpair.read(slba=0, buffer=buffer)
        for _ in range(pause):
            if step:
                step(lambda enabled: bench.random.randrange(enabled))
            else:
                bench.link.read(0x1C, 4)  # some time passes; how much, nobody can say
        qpair.read(slba=1, buffer=buffer)
        qpair.wait_all()


@check(
    "shadow.full-cq",
    ref=PROTOCOL,
    expected="entries of a full completion queue that are released through the shadow are used",
)
def shadow_full_cq(bench: Bench) -> None:
    """A full completion queue, drained through the shadow of its head doorbell."""
    _begin(bench)
    for cq_entries in (2, 3, 4):
        if not fits(bench.nvme, 8):
            continue
        for together in (1, cq_entries - 1):
            qpair = bench.nvme.create_qpair(
                entries=min(8, bench.nvme.cap.mqes), cq_entries=cq_entries, release="held"
            )
            _drain(bench, qpair, together)
            bench.nvme.delete_qpair(qpair)


def _drain(bench: Bench, qpair: Qpair, together: int) -> None:
    """Seven commands, the head doorbell after each `together` entries, and pauses in between."""
    buffer = bench.nvme.buffer(512)
    pending = [qpair.read(slba=number, buffer=buffer) for number in range(7)]
    while qpair.outstanding:
        bench.link.settle()

        def some() -> bool:
            return bool(qpair.cq.reap(together))

        qpair.cq.wait(some, "a completion", serve=False)
        if qpair.cq.peek() is None or (qpair.cq.head - qpair.cq.rung) % 8 >= together:
            qpair.cq.ring()
    for command in pending:
        command.check()


@check(
    "shadow.queues-again",
    ref=PROTOCOL,
    expected="a queue that is created again begins at 0, whatever its doorbells' shadows said",
)
def queues_again(bench: Bench) -> None:
    """Queues deleted and created again while shadow doorbells are in use."""
    _begin(bench)
    for used in (1, 2, 3, 4):
        qpair = bench.nvme.create_qpair(entries=min(4, bench.nvme.cap.mqes))
        load(bench, [qpair], used)
        bench.nvme.delete_qpair(qpair)


@check(
    "shadow.reset",
    ref=CONFIG,
    expected="a reset ends it: the device leaves the two pages alone, and doorbell writes count",
)
def shadow_reset(bench: Bench) -> None:
    """A Controller Reset while shadow doorbells are in use, then work without them."""
    _begin(bench)
    nvme = bench.nvme
    load(bench, [nvme.create_qpair(entries=min(4, nvme.cap.mqes))], 7)
    pages = nvme.doorbells.pages
    nvme.write_cc(Cc(iosqes=IOSQES, iocqes=IOCQES))
    nvme.wait_csts("CSTS.RDY 0", rdy=0)
    pattern = bytes([0xA5]) * _PAGE
    for page in pages:
        bench.link.memory.write(page, pattern)
    nvme.enable_beside()
    load(bench, [nvme.create_qpair(entries=min(3, nvme.cap.mqes))], 10)
    for name, page in zip(("shadow doorbell", "EventIdx"), pages, strict=True):
        bench.expect(
            bench.link.memory.read(page, _PAGE) == pattern,
            f"after the reset, the device wrote into the {name} page of before",
        )
