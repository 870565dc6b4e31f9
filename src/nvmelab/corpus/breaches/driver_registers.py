"""Drivers that break one rule of registers, resets or interrupts."""

from __future__ import annotations

import msgspec

from nvmelab.corpus.breaches.driving import planted, ring_tail, started
from nvmelab.host.driver import Controller as Driver
from nvmelab.spec.registers import DOORBELLS, OFFSET, Aqa, Cc


def admin_register_while_enabled(nvme: Driver) -> None:
    """AQA is written while the controller is enabled."""
    nvme.start()
    nvme["aqa"] = nvme["aqa"]


def one_entry_admin_queue(nvme: Driver) -> None:
    """The controller is enabled with an admin queue of one entry."""
    nvme.disable()
    nvme.prepare()
    nvme["aqa"] = int.from_bytes(Aqa(asqs=1, acqs=32).encode(), "little")
    nvme.write_cc(Cc(en=1, iosqes=6, iocqes=4))


def admin_queue_unaligned(nvme: Driver) -> None:
    """ASQ is aligned to 4 KiB, and CC.MPS says pages of 8 KiB."""
    nvme.disable()
    nvme.prepare()
    nvme["asq"], nvme["acq"] = 0x1000_1000, 0x1000_2000
    nvme.write_cc(Cc(en=1, mps=1, iosqes=6, iocqes=4))


def page_too_large(nvme: Driver) -> None:
    """CC.MPS is above CAP.MPSMAX."""
    nvme.disable()
    nvme.prepare()
    nvme.write_cc(Cc(en=1, mps=nvme.cap.mpsmax + 1, iosqes=6, iocqes=4))


def unknown_command_set(nvme: Driver) -> None:
    """CC.CSS is a command set that CAP.CSS does not have."""
    nvme.disable()
    nvme.prepare()
    nvme.write_cc(Cc(en=1, css=3, iosqes=6, iocqes=4))


def _enabled_with(nvme: Driver, **fields: int) -> None:
    nvme.disable()
    nvme.prepare()
    nvme.write_cc(Cc(en=1, iosqes=6, iocqes=4, **fields))
    nvme.wait_csts("CSTS.RDY 1", rdy=1)


def arbitration_reserved(nvme: Driver) -> None:
    """CC.AMS is a reserved value."""
    _enabled_with(nvme, ams=2)


def arbitration_not_offered(nvme: Driver) -> None:
    """CC.AMS is weighted round robin, which CAP.AMS does not have."""
    _enabled_with(nvme, ams=1)


def page_size_changed(nvme: Driver) -> None:
    """CC.MPS is changed while the controller is enabled."""
    nvme.start()
    nvme.write_cc(msgspec.structs.replace(nvme.cc, mps=1))


def narrow_write(nvme: Driver) -> None:
    """CC is written byte by byte."""
    nvme.disable()
    nvme.link.write(OFFSET["cc"] + 2, 2, 0x46)


def csts_written(nvme: Driver) -> None:
    """CSTS is written."""
    nvme.start()
    nvme["csts"] = 1


def wide_doorbell(nvme: Driver) -> None:
    """A tail doorbell is written with 8 bytes."""
    queue = started(nvme)
    queue.sq.ring_each = False
    queue.read(slba=0)
    nvme.link.write(DOORBELLS + 8 * queue.qid, 8, queue.sq.tail)


# Reset.


def _set_enable_at_once(nvme: Driver) -> None:
    cc = nvme.cc
    nvme.write_cc(msgspec.structs.replace(cc, en=0))
    nvme.write_cc(cc)


def enabled_while_ready(nvme: Driver) -> None:
    """CC.EN is cleared and set again without a look at CSTS.RDY."""
    nvme.enable()
    _set_enable_at_once(nvme)


def disabled_before_ready(nvme: Driver) -> None:
    """CC.EN is cleared before CSTS.RDY is 1."""
    nvme.start()
    nvme.disable()
    nvme.prepare()
    nvme.write_cc(Cc(en=1, iosqes=6, iocqes=4))
    nvme.write_cc(Cc())


def doorbell_before_ready(nvme: Driver) -> None:
    """The admin queue is rung before CSTS.RDY is 1."""
    nvme.start()
    nvme.disable()
    nvme.prepare()
    nvme.write_cc(Cc(en=1, iosqes=6, iocqes=4))
    ring_tail(nvme, 0, 1)


def submits_after_shutdown(nvme: Driver) -> None:
    """An I/O command is submitted when the shutdown is complete."""
    queue = started(nvme)
    nvme.shutdown()
    queue.read(slba=0)


def masks_under_msix(nvme: Driver) -> None:
    """INTMS is written while MSI-X is in use."""
    nvme.start()
    nvme["intms"] = 1


def entry_size_changed(nvme: Driver) -> None:
    """CC.IOSQES is changed when there are I/O queues."""
    started(nvme)
    nvme.write_cc(msgspec.structs.replace(nvme.cc, iosqes=7))


def shn_reserved(nvme: Driver) -> None:
    """CC.SHN is 11b."""
    nvme.start()
    nvme.write_cc(msgspec.structs.replace(nvme.cc, shn=3))


def two_registers_at_once(nvme: Driver) -> None:
    """8 bytes are written over CC and the register behind it."""
    nvme.disable()
    nvme.link.write(OFFSET["cc"], 8, 0x46_0000)


def doorbell_high_bits(nvme: Driver) -> None:
    """The reserved half of a doorbell is not 0."""
    queue = started(nvme)
    queue.sq.ring_each = False
    queue.read(slba=0)
    nvme.link.write(DOORBELLS + 8 * queue.qid, 4, queue.sq.tail | 0xBEEF_0000)


BREACHES = [
    planted(rule, act)
    for rule, act in (
        ("registers.entry-size-changed", entry_size_changed),
        ("registers.shn-reserved", shn_reserved),
        ("registers.access", two_registers_at_once),
        ("doorbell.reserved", doorbell_high_bits),
        ("registers.admin-queue-enabled", admin_register_while_enabled),
        ("registers.admin-queue-size", one_entry_admin_queue),
        ("registers.admin-queue-base", admin_queue_unaligned),
        ("registers.page-size", page_too_large),
        ("registers.command-set", unknown_command_set),
        ("registers.arbitration", arbitration_reserved),
        ("registers.arbitration", arbitration_not_offered),
        ("registers.cc-enabled", page_size_changed),
        ("registers.access", narrow_write),
        ("registers.read-only", csts_written),
        ("doorbell.aligned", wide_doorbell),
        ("reset.enabled-while-ready", enabled_while_ready),
        ("reset.disabled-before-ready", disabled_before_ready),
        ("reset.doorbell-before-ready", doorbell_before_ready),
        ("reset.submitted-after-shutdown", submits_after_shutdown),
        ("interrupts.mask-with-msix", masks_under_msix),
    )
]
