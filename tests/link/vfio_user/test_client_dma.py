"""Memory of the client: what the server gets of it, by mapping and by message."""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Iterable

import pytest

from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.client import VfioUserLink
from tests.link.vfio_user.fake_server import (
    BASE,
    PAGE,
    SIZE,
    FakeServer,
    Said,
    command,
    file_of,
)

EINVAL, EFAULT, E2BIG, ENOTSUP = 22, 14, 7, 95


def access(addr: int, count: int) -> bytes:
    return wire.DMA_ACCESS.pack(addr, count)


def answer_to(fake: FakeServer, link: VfioUserLink, *messages: bytes) -> Said:
    """What the client says to messages of the server's own, while it waits for something else."""
    for message in messages:
        fake.send(message)
    link.settle()
    [answer] = [said for said in fake.said if said.flags & wire.TYPE_MASK == wire.REPLY]
    return answer


# By mapping.


def test_memory_is_mapped_whole_at_one_place_with_its_file(fake: FakeServer) -> None:
    link = fake.link()

    [mapped] = [said for said in fake.said if said.command == wire.DMA_MAP]

    assert wire.DMA_MAP_BODY.unpack(mapped.payload) == (32, 3, 0, BASE, SIZE)
    ram = mmap.mmap(mapped.fds[0], SIZE)
    addr = link.allocate(8)
    link.memory.write(addr, b"from us!")
    assert ram[addr - BASE :][:8] == b"from us!"
    ram[addr - BASE : addr - BASE + 4] = struct.pack("=I", 7)
    assert link.memory.load_u32(addr) == 7
    ram.close()
    link.close()


@pytest.mark.parametrize("size", [0, SIZE // 2, 2 * SIZE])
def test_server_cannot_change_the_size_of_the_file(fake: FakeServer, size: int) -> None:
    link = fake.link()
    [mapped] = [said for said in fake.said if said.command == wire.DMA_MAP]

    with pytest.raises(PermissionError):
        os.ftruncate(mapped.fds[0], size)

    link.close()


def test_allocations_are_zeroed_aligned_and_apart(fake: FakeServer) -> None:
    link = fake.link()

    addresses = [link.allocate(size) for size in (1, PAGE, PAGE + 1, 8)]

    assert all(addr % PAGE == 0 for addr in addresses)
    steps = [b - a for a, b in itertools.pairwise(addresses)]
    assert steps == [PAGE, PAGE, 2 * PAGE]
    assert link.memory.read(addresses[0], 5 * PAGE) == bytes(5 * PAGE)
    link.close()


def test_all_of_the_memory_can_be_allocated_and_no_more(fake: FakeServer) -> None:
    link = fake.link()
    link.allocate(SIZE)

    with pytest.raises(MemoryError, match="no 1 bytes left"):
        link.allocate(1)

    link.close()


def test_memory_that_is_given_back_is_zero_again(fake: FakeServer) -> None:
    link = fake.link()
    first = link.allocate(PAGE)
    link.memory.write(first, b"x" * PAGE)

    link.free_all()

    assert link.allocate(PAGE) == first
    assert link.memory.read(first, PAGE) == bytes(PAGE)
    link.close()


# By message.


def test_server_reads_our_memory_by_message(fake: FakeServer) -> None:
    link = fake.link()
    link.memory.write(BASE + 6, b"words")

    answer = answer_to(fake, link, command(77, wire.DMA_READ, access(BASE + 6, 5)))

    assert answer[:4] == (77, wire.DMA_READ, wire.REPLY, 0)
    assert answer.payload == access(BASE + 6, 5) + b"words"
    link.close()


def test_server_writes_our_memory_by_message(fake: FakeServer) -> None:
    link = fake.link()

    answer = answer_to(fake, link, command(77, wire.DMA_WRITE, access(BASE + 3, 5) + b"words"))

    assert answer[:4] == (77, wire.DMA_WRITE, wire.REPLY, 0)
    assert answer.payload == access(BASE + 3, 5)
    assert link.memory.read(BASE, 10) == b"\0\0\0words\0\0"
    link.close()


def test_largest_transfer_fits(fake: FakeServer) -> None:
    size = 1 << 20
    data = bytes(range(256)) * (size // 256)
    message = command(5, wire.DMA_WRITE, access(BASE, size) + data)
    unsent: list[bytes] = []
    pump = fake.pump

    def in_pieces() -> None:
        pump()
        if unsent:
            fake.send(unsent.pop(0))

    link = fake.link(size=size, pump=in_pieces)
    unsent += [message[at : at + PAGE] for at in range(0, len(message), PAGE)]

    assert link.wait(lambda: link.memory.read(BASE, size) == data)

    link.close()


@pytest.mark.parametrize(
    ("number", "payload", "error"),
    [
        (wire.DMA_READ, access(BASE - 1, 1), EFAULT),
        (wire.DMA_READ, access(BASE - 1, 2), EFAULT),
        (wire.DMA_READ, access(BASE + SIZE - 1, 2), EFAULT),
        (wire.DMA_READ, access(BASE + SIZE, 1), EFAULT),
        (wire.DMA_READ, access(0, 8), EFAULT),
        (wire.DMA_READ, access((1 << 64) - 1, 8), EFAULT),
        (wire.DMA_READ, access(BASE, (1 << 20) + 1), E2BIG),
        (wire.DMA_READ, access(BASE, (1 << 64) - 1), E2BIG),
        (wire.DMA_READ, access(BASE, 8)[:15], EINVAL),
        (wire.DMA_READ, access(BASE, 8) + b"x", EINVAL),
        (wire.DMA_WRITE, access(BASE + SIZE - 1, 2) + b"xy", EFAULT),
        (wire.DMA_WRITE, access(BASE, 2) + b"x", EINVAL),
        (wire.DMA_WRITE, access(BASE, 2) + b"xyz", EINVAL),
        (wire.DMA_WRITE, access(BASE, (1 << 64) - 1) + b"xyz", E2BIG),
        (wire.DMA_WRITE, b"", EINVAL),
        (wire.VERSION, b"", ENOTSUP),
        (wire.REGION_READ, wire.ACCESS.pack(0, 0, 4), ENOTSUP),
        (0, b"", ENOTSUP),
        (0xFFFF, b"x" * 100, ENOTSUP),
    ],
)
def test_what_the_server_must_not_ask_is_refused(
    fake: FakeServer, number: int, payload: bytes, error: int
) -> None:
    link = fake.link()

    answer = answer_to(fake, link, command(77, number, payload))

    assert answer == (77, number, wire.REPLY | wire.ERROR, error, b"", [])
    assert link.memory.read(BASE, SIZE) == bytes(SIZE)
    link.close()


def test_command_with_descriptors_is_refused_and_they_are_closed(fake: FakeServer) -> None:
    link = fake.link()
    fd = file_of(PAGE)
    before = len(os.listdir("/proc/self/fd"))
    fake.send((command(77, wire.DMA_READ, access(BASE, 8)), [fd, fd]))

    link.settle()

    [answer] = [said for said in fake.said if said.flags & wire.REPLY]
    assert answer[:4] == (77, wire.DMA_READ, wire.REPLY | wire.ERROR, EINVAL)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)
    link.close()


def test_flags_that_do_not_exist_are_refused(fake: FakeServer) -> None:
    link = fake.link()

    answer = answer_to(fake, link, command(77, wire.DMA_READ, access(BASE, 8), flags=0x40))

    assert answer[:4] == (77, wire.DMA_READ, wire.REPLY | wire.ERROR, EINVAL)
    link.close()


def test_posted_write_is_done_and_not_answered_and_a_bad_one_is_answered(fake: FakeServer) -> None:
    link = fake.link()
    posted = command(1, wire.DMA_WRITE, access(BASE, 1) + b"x", flags=wire.NO_REPLY)
    bad = command(2, wire.DMA_WRITE, access(0, 1) + b"x", flags=wire.NO_REPLY)

    answer = answer_to(fake, link, posted, bad)

    assert answer[:4] == (2, wire.DMA_WRITE, wire.REPLY | wire.ERROR, EFAULT)
    assert link.memory.read(BASE, 1) == b"x"
    link.close()


def test_device_that_reads_its_queue_before_it_answers_a_doorbell(fake: FakeServer) -> None:
    link = fake.link()
    link.memory.write(BASE, b"entry")

    def answer(said: Said) -> Iterable[bytes]:
        yield command(0, wire.DMA_READ, access(BASE, 5))
        yield command(1, wire.DMA_WRITE, access(BASE + PAGE, 4) + b"done")
        yield wire.reply(said.message_id, said.command)

    fake.answers[wire.REGION_WRITE] = answer

    link.write(0x1000, 4, 1)

    assert link.memory.read(BASE + PAGE, 4) == b"done"
    link.close()


def test_dma_is_served_while_something_is_waited_for(fake: FakeServer) -> None:
    link = fake.link()
    fake.send(command(1, wire.DMA_WRITE, access(BASE, 4) + struct.pack("=I", 9)))

    assert link.wait(lambda: link.memory.load_u32(BASE) == 9)

    link.close()


def test_reply_to_nothing_while_something_is_waited_for(fake: FakeServer) -> None:
    link = fake.link()
    fake.send(wire.reply(1, wire.REGION_WRITE))

    with pytest.raises(LinkError, match="it has sent a reply to nothing"):
        link.wait(lambda: False)

    link.close()


def test_flood_does_not_make_a_wait_endless(fake: FakeServer) -> None:
    pump = fake.pump

    def flood() -> None:
        pump()
        if "DEVICE_SET_IRQS" in fake.commands():
            for number in range(20):
                fake.send(command(number, 999, flags=wire.NO_REPLY))

    link = fake.link(pump=flood)

    assert link.wait(lambda: False) is False

    link.close()
