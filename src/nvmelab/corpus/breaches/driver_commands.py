"""Drivers that break one rule of commands, or of where their data is."""

from __future__ import annotations

from nvmelab.corpus.breaches.driving import memory, planted, started, submit
from nvmelab.host.driver import Controller as Driver
from nvmelab.spec.admin import Abort, AsyncEventRequest, CreateIoCq, Identify
from nvmelab.spec.commands import AdminOpcode, Command
from nvmelab.spec.nvm import Read


def _raw(command: Command, **dwords: int) -> bytes:
    """The 64 bytes of a command with dwords replaced: `dw3=1`."""
    data = bytearray(command.encode())
    for name, value in dwords.items():
        at = 4 * int(name.removeprefix("dw"))
        data[at : at + 4] = value.to_bytes(4, "little")
    return bytes(data)


def cid_ffff(nvme: Driver) -> None:
    """A command has the CID FFFFh."""
    queue = started(nvme)
    queue.submit(Read(nsid=1, prp1=memory(nvme)), cid=0xFFFF).wait()


def fused_admin(nvme: Driver) -> None:
    """An admin command says that it is fused."""
    nvme.start()
    command = Identify(cns=1, prp1=memory(nvme))
    submit(nvme, _raw(command, dw0=AdminOpcode.IDENTIFY | 1 << 8))


def sgl_admin(nvme: Driver) -> None:
    """An admin command describes its data by an SGL."""
    nvme.start()
    command = Identify(cns=1, prp1=memory(nvme))
    submit(nvme, _raw(command, dw0=AdminOpcode.IDENTIFY | 1 << 14))


def reserved_set(nvme: Driver) -> None:
    """A reserved dword of Create I/O Completion Queue is not 0."""
    nvme.start()
    command = CreateIoCq(qid=1, qsize=4, prp1=memory(nvme))
    submit(nvme, _raw(command, dw13=0xDEAD))


def nsid_of_no_namespace(nvme: Driver) -> None:
    """An Abort command has an NSID."""
    nvme.start()
    submit(nvme, Abort(nsid=1, sqid=0, aborted_cid=99))


def sanitizes_a_namespace(nvme: Driver) -> None:
    """A Sanitize command, as edk2 sent it: with an NSID."""
    nvme.start()
    submit(nvme, _raw(Abort(), dw0=0x84, dw1=1))


def beyond_the_end(nvme: Driver) -> None:
    """A read goes beyond the end of the namespace."""
    queue = started(nvme)
    queue.read(slba=2047, nlb=8).wait()


def beyond_mdts(nvme: Driver) -> None:
    """A read is larger than MDTS allows."""
    queue = started(nvme)
    queue.read(slba=0, nlb=1 + (4096 << 7) // 512).wait()


def too_many_event_requests(nvme: Driver) -> None:
    """One Asynchronous Event Request more is outstanding than AERL allows."""
    nvme.start()
    for _ in range(nvme.identify().aerl + 1):
        submit(nvme, AsyncEventRequest())


def _reads(nvme: Driver, nlb: int, prp1: int, prp2: int = 0) -> None:
    queue = started(nvme)
    queue.submit(Read(nsid=1, nlb=nlb, prp1=prp1, prp2=prp2)).wait()


def second_page_offset(nvme: Driver) -> None:
    """PRP2, the second page of the data, has an offset."""
    nvme.start()
    _reads(nvme, 16, memory(nvme), 0x1000_0200)


def list_entry_offset(nvme: Driver) -> None:
    """An entry of a PRP list has an offset."""
    nvme.enable()
    nvme.disable()
    nvme.start()
    base = 0x1020_0000
    nvme.link.memory.write(base, b"".join((base + n).to_bytes(8, "little") for n in (0, 512, 0)))
    _reads(nvme, 32, 0x1030_0000, base)


def prp1_odd(nvme: Driver) -> None:
    """The offset of PRP1 is no multiple of 4."""
    _reads(nvme, 1, 0x1030_0002)


def list_odd(nvme: Driver) -> None:
    """The pointer to a PRP list is no multiple of 8."""
    _reads(nvme, 32, 0x1030_0000, 0x1020_0004)


def garbage_in_prp2(nvme: Driver) -> None:
    """PRP2 has garbage in it where the data fits in one page."""
    _reads(nvme, 1, 0x1030_0000, 0xDEAD_0000)


def no_memory(nvme: Driver) -> None:
    """The data of a read is to go where no memory is."""
    _reads(nvme, 1, 0x7000_0000_0000)


def reads_into_queue(nvme: Driver) -> None:
    """The data of a read is to go into the memory of its own completion queue."""
    queue = started(nvme)
    queue.submit(Read(nsid=1, nlb=1, prp1=queue.cq.base)).sq.cq.wait(lambda: False, "nothing")


BREACHES = [
    planted(rule, act)
    for rule, act in (
        ("commands.cid-ffff", cid_ffff),
        ("commands.fuse", fused_admin),
        ("commands.psdt", sgl_admin),
        ("commands.reserved", reserved_set),
        ("commands.nsid-unused", nsid_of_no_namespace),
        ("commands.nsid-unused", sanitizes_a_namespace),
        ("commands.lba-range", beyond_the_end),
        ("commands.mdts", beyond_mdts),
        ("commands.events-limit", too_many_event_requests),
        ("transfer.prp-offset", second_page_offset),
        ("transfer.prp-offset", list_entry_offset),
        ("transfer.prp1-dword", prp1_odd),
        ("transfer.list-aligned", list_odd),
        ("transfer.prp2-reserved", garbage_in_prp2),
        ("transfer.memory", no_memory),
        ("transfer.queue-memory", reads_into_queue),
    )
]
