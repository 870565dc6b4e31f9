"""Checks of the controller's properties: CAP, VS, CC, CSTS and the three of the admin queue."""

from __future__ import annotations

from functools import partial

import msgspec

from nvmelab.host.driver import Controller
from nvmelab.host.queues import Pending
from nvmelab.spec.admin import GetFeatures
from nvmelab.spec.commands import Completion
from nvmelab.spec.features import Feature
from nvmelab.spec.registers import (
    CQE_SIZE,
    IOCQES,
    IOSQES,
    OFFSET,
    SQE_SIZE,
    Aqa,
    Cap,
    Cc,
)
from nvmelab.suite.base import Bench, check

CAP_REF = "Base 2.2, 3.1.4.1"
ADMIN_QUEUE_REF = "Base 2.2, 3.1.4.8 (AQA), 3.1.4.9 (ASQ), 3.1.4.10 (ACQ)"
HALVES_REF = "NVMe over PCIe Transport, 3.1.2"
LARGEST_ADMIN = 4096
"""Entries (Base 2.2, 3.1.4.8 and 3.3.3.1). CAP.MQES is about I/O queues only."""
RELEASED = (
    0x0001_0000,
    0x0001_0100,
    0x0001_0200,
    0x0001_0201,
    0x0001_0300,
    0x0001_0400,
    0x0002_0000,
    0x0002_0100,
    0x0002_0200,
    0x0002_0300,
)
"""Values of VS that exist: Base 2.2, figure 38, and revision 2.3, which came after it."""
LOWER_HALF = 0xFFFF_FFFF

PROBE = GetFeatures(fid=Feature.NUMBER_OF_QUEUES)
"""A command that every controller has and that moves no data."""


def _halves(nvme: Controller, register: str) -> int:
    """An 8-byte register by two reads of 4 bytes."""
    return nvme[OFFSET[register]] | nvme[OFFSET[register] + 4] << 32


@check(
    "registers.cap",
    ref=CAP_REF,
    expected="MQES is at least 1 (two entries), MPSMIN is at most MPSMAX, CSS names a command set",
)
def cap(bench: Bench) -> None:
    """CAP makes sense, and reads the same whether the controller is enabled or not."""
    nvme = bench.nvme
    value = nvme["cap"]
    fields = Cap.decode(value.to_bytes(8, "little"))
    bench.expect(fields.mqes >= 2, "CAP.MQES is 0: queues of one entry, which can hold none")
    bench.expect(
        fields.mpsmin <= fields.mpsmax,
        f"CAP.MPSMIN {fields.mpsmin} is larger than CAP.MPSMAX {fields.mpsmax}",
    )
    bench.expect(fields.css, "CAP.CSS is 0: no I/O command set, and not the admin one alone")
    for state in ("while it is enabled", "after a controller reset", "once more"):
        again = nvme["cap"]
        bench.expect(
            again == value,
            f"CAP was {value:#018x}, and reads {again:#018x} {state}",
            expected="CAP does not change",
        )
        nvme.disable()


@check(
    "registers.halves",
    ref=HALVES_REF,
    expected="an 8-byte property is reached by one access of 8 bytes or two of 4, alike",
)
def halves(bench: Bench) -> None:
    """CAP, ASQ and ACQ read and written whole and in halves."""
    nvme = bench.nvme
    whole, split = nvme["cap"], _halves(nvme, "cap")
    bench.expect(whole == split, f"CAP reads {whole:#018x} whole and {split:#018x} in two halves")
    nvme.disable()
    for register in ("asq", "acq"):
        for _ in range(8):
            value = bench.random.getrandbits(52) << 12
            low, high = value & LOWER_HALF, value >> 32
            # Lower half first, as Linux does it: that the other order works is not said clearly
            # enough to hold a device to it.
            nvme[OFFSET[register]] = low
            nvme[OFFSET[register] + 4] = high
            seen = nvme[register]
            bench.expect(
                seen == value,
                f"{register.upper()} was written as {low:#x} and {high:#x}, and reads {seen:#x}",
            )
            other = value ^ bench.random.getrandbits(52) << 12
            nvme[register] = other
            seen = _halves(nvme, register)
            bench.expect(
                seen == other,
                f"{register.upper()} was written whole as {other:#x}, and reads {seen:#x} in two "
                "halves",
            )


@check(
    "registers.version",
    ref="Base 2.2, 3.1.4.2",
    expected="VS is a revision that was published, and does not change",
)
def version(bench: Bench) -> None:
    """VS names a revision of the specification."""
    value = bench.nvme["vs"]
    # A newer revision than we know of is nobody's fault.
    bench.expect(
        value in RELEASED or value > RELEASED[-1],
        f"VS is {value:#010x}: there is no revision {value >> 16}.{value >> 8 & 0xFF}."
        f"{value & 0xFF}",
    )
    bench.nvme.disable()
    again = bench.nvme["vs"]
    bench.expect(again == value, f"VS was {value:#010x}, and is {again:#010x} after a reset")


@check(
    "registers.read-only",
    ref="Base 2.2, 3.1.4 (RO), 3.1.4.1, 3.1.4.2, 3.1.4.6",
    expected="CAP, VS and CSTS.RDY stay as they are when they are written",
)
def read_only(bench: Bench) -> None:
    """Other values written to CAP, VS and CSTS.RDY, disabled and enabled."""
    nvme = bench.nvme
    for enabled in (True, False):
        for name, size in (("cap", 8), ("vs", 4)):
            value = nvme[name]
            # Everything cleared, then some bits turned over that are not reserved.
            for brought in (0, value ^ (0x00FF_0021_FF01_FFFF if size == 8 else 0x0003_0301)):
                nvme[name] = brought
                seen = nvme[name]
                bench.expect(
                    seen == value,
                    f"{name.upper()} was {value:#x}, and reads {seen:#x} after {brought:#x} was "
                    "written to it",
                )
        rdy = nvme.csts.rdy
        # The other bits of CSTS as 0: NSSRO is cleared by writing a 1.
        nvme["csts"] = 1 - rdy
        seen = nvme.csts.rdy
        bench.expect(
            seen == rdy, f"CSTS.RDY was {rdy}, and is {seen} after {1 - rdy} was written to it"
        )
        if enabled:
            nvme.identify()  # it still works
            nvme.disable()
    nvme.enable()
    nvme.identify()


@check(
    "registers.admin-queue",
    ref=ADMIN_QUEUE_REF,
    expected="AQA, ASQ and ACQ read back what was written while the controller is disabled",
)
def admin_queue(bench: Bench) -> None:
    """Legal sizes and page-aligned addresses in the properties of the admin queue."""
    nvme = bench.nvme
    nvme.disable()
    for number in range(12):
        sizes = (2, LARGEST_ADMIN) if number < 2 else tuple(range(2, LARGEST_ADMIN + 1))
        aqa = Aqa(asqs=bench.random.choice(sizes), acqs=bench.random.choice(sizes))
        wanted = {
            "aqa": int.from_bytes(aqa.encode(), "little"),
            "asq": bench.random.getrandbits(52) << 12,
            "acq": bench.random.getrandbits(52) << 12,
        }
        names = bench.random.sample(sorted(wanted), 3)
        for name in names:
            nvme[name] = wanted[name]
        for name in names:
            seen = nvme[name]
            bench.expect(
                seen == wanted[name],
                f"{wanted[name]:#x} was written to {name.upper()}, and it reads {seen:#x}",
            )


@check(
    "registers.cc-two-steps",
    ref="Base 2.2, 3.1.4.5 and 3.5.1",
    expected="CC keeps the fields that were written before EN, and EN starts the controller",
)
def cc_two_steps(bench: Bench) -> None:
    """CC written field by field, and EN on top of what it reads, as Linux does since 5.19."""
    nvme = bench.nvme
    steps = ({"mps": nvme.cap.mpsmin}, {"iosqes": IOSQES}, {"iocqes": IOCQES})
    for one_write in (True, False):
        nvme.disable()
        nvme.prepare()
        cc = Cc()
        for step in steps:
            cc = msgspec.structs.replace(cc, **step)
            if not one_write:
                nvme.write_cc(cc)
        if one_write:
            nvme.write_cc(cc)
        seen = nvme.cc
        bench.expect(seen == cc, f"CC was written as {cc}, without EN, and reads {seen}")
        nvme.write_cc(msgspec.structs.replace(seen, en=1))
        nvme.wait_csts("CSTS.RDY 1", rdy=1)
        seen = nvme.cc
        bench.expect(
            seen == msgspec.structs.replace(cc, en=1),
            f"CC was {cc} when EN was written to it, and reads {seen}",
        )
        # It needs the sizes of the entries.
        nvme.create_qpair(entries=2).flush().check()


def _laps(nvme: Controller, sq_entries: int, cq_entries: int) -> None:
    """Commands on a new admin queue of these sizes: over the wrap of both rings, the larger one's
    an odd number of times, with as many outstanding as fit."""
    nvme.enable(sq_entries=sq_entries, cq_entries=cq_entries)
    pending: list[Pending] = []
    for _ in range(3 * max(sq_entries, cq_entries) + 1):
        pending.append(nvme.admin.submit(PROBE))
    nvme.admin.wait_all()
    for command in pending:
        command.check()


@check(
    "registers.admin-smallest",
    ref="Base 2.2, 3.1.4.8",
    expected="an admin queue of two entries works",
)
def admin_smallest(bench: Bench) -> None:
    """The admin queue with the fewest entries: one command at a time."""
    _laps(bench.nvme, 2, 2)
    bench.nvme.identify()


@check(
    "registers.admin-sizes",
    ref="Base 2.2, 3.1.4.8 and 3.3.1.2.1",
    expected="the admin submission and completion queue may have different sizes",
)
def admin_sizes(bench: Bench) -> None:
    """The larger admin queue is the submission queue, or the completion queue."""
    for sq_entries, cq_entries in ((2, 5), (5, 2), (3, 8), (8, 3), (7, 6)):
        _laps(bench.nvme, sq_entries, cq_entries)


def _has_phase(bench: Bench, addr: int, phase: int) -> bool:
    """The phase tag of the completion queue entry there."""
    return bench.link.memory.load_u32(addr + 12) >> 16 & 1 == phase


@check(
    "registers.admin-largest",
    ref="Base 2.2, 3.1.4.8 and 3.3.3.1",
    expected="an admin queue of 4096 entries works, filled to the last one, over the wrap",
)
def admin_largest(bench: Bench) -> None:
    """The largest admin queue, filled with 4095 commands by one doorbell, and then three more."""
    nvme, entries = bench.nvme, LARGEST_ADMIN
    nvme.enable(sq_entries=entries, cq_entries=entries)
    sq, cq, memory = nvme.admin.sq, nvme.admin.cq, bench.link.memory
    commands = [msgspec.structs.replace(PROBE, cid=cid).encode() for cid in range(entries)]
    # By hand and with few accesses, because each costs time on some links.
    memory.write(sq.base, b"".join(commands))
    nvme.doorbells.ring_tail(0, 0, entries - 1, entries)
    last = cq.base + (entries - 2) * CQE_SIZE
    posted = bench.link.wait(partial(_has_phase, bench, last, 1))
    ring = memory.read(cq.base, entries * CQE_SIZE)
    found = [
        entry
        for at in range(0, len(ring), CQE_SIZE)
        if (entry := Completion.decode(ring[at : at + CQE_SIZE])).phase
    ]
    bench.expect(
        posted and len(found) == entries - 1,
        f"of {entries - 1} commands rung at once {len(found)} were completed",
    )
    failed = [entry for entry in found if entry.status & 0x7FF]
    bench.expect(not failed, f"{len(failed)} commands failed, the first with {failed[:1]}")
    missing = set(range(entries - 1)) - {entry.cid for entry in found}
    bench.expect(
        not missing, f"{len(missing)} commands got no completion: CID {sorted(missing)[:4]}"
    )
    nvme.doorbells.ring_head(0, 0, entries - 1, entries)
    for number in range(3):
        slot = (entries - 1 + number) % entries
        memory.write(sq.base + slot * SQE_SIZE, commands[slot])
        nvme.doorbells.ring_tail(0, slot, (slot + 1) % entries, entries)
        phase = 0 if slot < entries - 1 else 1
        at = cq.base + slot * CQE_SIZE
        bench.expect(
            bench.link.wait(partial(_has_phase, bench, at, phase)),
            f"the command in slot {slot} after a full lap got no completion with phase {phase}",
        )
        entry = Completion.decode(memory.read(at, CQE_SIZE))
        bench.expect(
            entry.cid == slot and not entry.status & 0x7FF,
            f"the command with CID {slot:#x} in slot {slot} was answered with {entry}",
        )
        nvme.doorbells.ring_head(0, slot, (slot + 1) % entries, entries)
