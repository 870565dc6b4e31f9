"""The client against servers that answer wrongly, late, or with more than was asked for.

Each ends in LinkError with one line, and leaves no descriptor open: `error_of_link` looks at both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import pytest

from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.fake_server import (
    PAGE,
    FakeServer,
    Part,
    Said,
    command,
    file_of,
    good,
    nothing,
    refused,
    version,
    with_fds,
    words_of,
)

DEEP = wire.VERSION_HEAD.pack(0, 0) + b"[" * 2_000 + b"]" * 2_000 + b"\0"
NOT_UTF8 = wire.VERSION_HEAD.pack(0, 0) + b'{"capabilities": {"max_msg_fds": "\xff"}}\0'


def header(said: Said, **changes: int) -> bytes:
    """The header of a reply, with some fields changed."""
    fields = {"message_id": said.message_id, "command": said.command, "size": 16, "flags": 1}
    fields.update(changes)
    return wire.HEADER.pack(*fields.values(), 0)


# The header.


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"message_id": 99}, "a reply to message 99, VERSION, while message 1, VERSION, is the"),
        ({"command": wire.DMA_MAP}, "a reply to message 1, DMA_MAP, while message 1, VERSION"),
        ({"command": 777}, "command 777"),
        ({"flags": 2}, "a message with flags 0x2"),
        ({"flags": 0xF}, "a message with flags 0xf"),
        ({"size": 15}, "VERSION of 15 bytes"),
        ({"size": 0}, "VERSION of 0 bytes"),
        ({"size": (1 << 20) + 33}, "VERSION of 1048609 bytes"),
        ({"size": 0xFFFF_FFFF}, "VERSION of 4294967295 bytes"),
    ],
)
def test_reply_with_a_bad_header(fake: FakeServer, changes: dict[str, int], what: str) -> None:
    fake.answers[wire.VERSION] = lambda said: [header(said, **changes)]

    message = fake.error_of_link()

    assert "the server does not keep to vfio-user: it has sent " in message
    assert what in message


def test_second_reply_to_the_same_message(fake: FakeServer) -> None:
    fake.answers[wire.DMA_MAP] = lambda said: [header(said) * 2]

    assert "a reply to message 2, DMA_MAP, while message 3, DEVICE_GET" in fake.error_of_link()


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (17, "File exists (EEXIST)"),
        (0, "error number 0"),
        (0xFFFF_FFFF, "error number 4294967295"),
    ],
)
def test_refusal_names_the_errno(fake: FakeServer, number: int, what: str) -> None:
    fake.answers[wire.DMA_MAP] = refused(number)

    assert f"the server refuses DMA_MAP: {what}" in fake.error_of_link()


def test_message_that_breaks_off(fake: FakeServer) -> None:
    def break_off(said: Said) -> Iterable[Part]:
        fake.send(header(said)[:9])
        fake.hang_up()
        return []

    fake.answers[wire.DEVICE_GET_INFO] = break_off

    assert "the server closed the connection; see what it says itself" in fake.error_of_link()


def test_message_that_stops_in_the_middle(fake: FakeServer) -> None:
    fake.answers[wire.DEVICE_GET_INFO] = lambda said: [header(said, size=32)]

    assert "no reply to DEVICE_GET_INFO within 10 s" in fake.error_of_link()


def test_message_that_comes_byte_by_byte_is_as_good_as_any(fake: FakeServer) -> None:
    def drip(said: Said) -> Iterable[Part]:
        return [bytes([byte]) for byte in wire.reply(said.message_id, said.command, version({}))]

    fake.answers[wire.VERSION] = drip

    fake.link().close()


# More than was asked for.


def test_endless_commands_do_not_hold_us(fake: FakeServer) -> None:
    fake.answers[wire.DEVICE_GET_INFO] = nothing
    pump = fake.pump

    def flood() -> None:
        pump()
        if "DEVICE_GET_INFO" in fake.commands():
            for number in range(20):
                fake.send(command(number, 999, flags=wire.NO_REPLY))

    assert "no reply to DEVICE_GET_INFO within 10 s" in fake.error_of_link(pump=flood)


def test_server_that_asks_and_never_reads_the_answers(fake: FakeServer) -> None:
    read = command(1, wire.DMA_READ, wire.DMA_ACCESS.pack(0x1000_0000, 16 * PAGE))
    fake.answers[wire.DEVICE_GET_INFO] = lambda said: [read * 100]
    pump = fake.pump

    def deaf() -> None:
        if "DEVICE_GET_INFO" not in fake.commands():
            pump()

    assert "the answer to DMA_READ is not taken within 10 s" in fake.error_of_link(pump=deaf)


def test_descriptors_that_nobody_asked_for(fake: FakeServer) -> None:
    fd = file_of(PAGE)
    fake.answers[wire.DMA_MAP] = with_fds(b"", [fd, fd])

    message = fake.error_of_link()

    assert "descriptors with the reply to DMA_MAP" in message
    os.close(fd)


def test_descriptors_with_a_refusal(fake: FakeServer) -> None:
    fd = file_of(PAGE)
    fake.answers[wire.DMA_MAP] = lambda said: [
        (wire.error_reply(said.message_id, said.command, 22), [fd])
    ]

    assert "the server refuses DMA_MAP" in fake.error_of_link()
    os.close(fd)


def test_more_descriptors_than_a_message_may_have(fake: FakeServer) -> None:
    fd = file_of(PAGE)
    fake.answers[wire.DMA_MAP] = with_fds(b"", [fd] * 17)

    assert "more descriptors than a message may have" in fake.error_of_link()
    os.close(fd)


def test_descriptors_of_one_message_are_not_taken_for_the_next_ones(fake: FakeServer) -> None:
    fd = file_of(PAGE)
    fake.answers[wire.DMA_MAP] = lambda said: [
        (command(1, 999), [fd]),
        wire.reply(said.message_id, said.command),
    ]

    fake.link().close()
    os.close(fd)


@pytest.mark.parametrize(
    ("number", "room"),
    [
        (wire.DMA_MAP, 32),
        (wire.DEVICE_GET_INFO, 16),
        (wire.DEVICE_GET_IRQ_INFO, 16),
        (wire.DEVICE_SET_IRQS, 20),
        (wire.DEVICE_RESET, 0),
    ],
)
def test_reply_that_is_longer_than_the_command(fake: FakeServer, number: int, room: int) -> None:
    resets = wire.DEVICE_INFO.pack(16, wire.DEVICE_PCI | wire.DEVICE_RESETS, 9, 5)
    fake.answers[wire.DEVICE_GET_INFO] = good(resets)
    payload = resets + b"x" if number == wire.DEVICE_GET_INFO else b"x" * (room + 1)
    fake.answers[number] = good(payload)

    name = wire.command_name(number)
    assert f"a reply to {name} with {room + 1} bytes of payload" in fake.error_of_link()


# VERSION.


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "a reply to VERSION with 0 bytes of payload instead of 4 to 4096"),
        (b"\0\0", "a reply to VERSION with 2 bytes of payload instead of 4"),
        (version({}, major=1), "the server speaks vfio-user 1.0; we speak 0.1"),
        (version({}, major=0xFFFF), "the server speaks vfio-user 65535.0; we speak 0.1"),
        (version([]), "capabilities that are no such JSON (Expected `object`, got `array`"),
        (version({"max_msg_fds": "8"}), "no such JSON (Expected `int`, got `str`"),
        (version({"max_msg_fds": 0}), "the server takes 0 descriptors and 1048576 bytes"),
        (version({"max_msg_fds": -1}), "the server takes -1 descriptors"),
        (version({"max_data_xfer_size": 7}), "the server takes 1 descriptors and 7 bytes"),
        (wire.VERSION_HEAD.pack(0, 0) + b"{}}\0", "no such JSON"),
        (wire.VERSION_HEAD.pack(0, 0) + b"\0\0", "no such JSON"),
        (version("x" * 5_000), "payload instead of 4 to 4096"),
        (DEEP, "no such JSON"),
        (NOT_UTF8, "no such JSON"),
    ],
    ids=words_of,
)
def test_version_that_makes_no_sense(fake: FakeServer, payload: bytes, what: str) -> None:
    fake.answers[wire.VERSION] = good(payload)

    assert what in fake.error_of_link()


@pytest.mark.parametrize(
    ("payload", "each"),
    [
        (wire.VERSION_HEAD.pack(0, 1), [1, 1, 1]),
        (wire.VERSION_HEAD.pack(0, 1) + json.dumps({"more": [1]}).encode(), [1, 1, 1]),
        (version({"max_msg_fds": 2, "twin_socket": {"supported": True}}), [2, 1]),
        (version({"max_msg_fds": 1 << 70}), [3]),
    ],
    ids=["no JSON", "no capabilities and no NUL", "unknown ones", "more than a message may have"],
)
def test_eventfds_go_out_as_many_at_a_time_as_the_server_takes(
    fake: FakeServer, payload: bytes, each: list[int]
) -> None:
    fake.answers[wire.VERSION] = good(payload)

    link = fake.link()

    given = [said for said in fake.said if said.command == wire.DEVICE_SET_IRQS]
    assert [len(said.fds) for said in given] == each
    starts = [sum(each[:number]) for number in range(len(each))]
    assert [wire.SET_IRQS.unpack(said.payload) for said in given] == [
        (20, 0x24, 2, start, count) for start, count in zip(starts, each, strict=True)
    ]
    link.close()


# Interrupts.


@pytest.mark.parametrize(
    ("info", "vectors"),
    [
        (wire.IRQ_INFO.pack(16, 1, 2, 0xFFFF_FFFF), 3),
        (wire.IRQ_INFO.pack(16, 1, 2, 2), 2),
        (wire.IRQ_INFO.pack(16, 1, 2, 0), 0),
        (wire.IRQ_INFO.pack(16, 0, 2, 3), 0),
    ],
    ids=["more than the capability says", "fewer", "none", "not by eventfd"],
)
def test_vectors_are_those_that_both_sides_have(
    fake: FakeServer, info: bytes, vectors: int
) -> None:
    fake.answers[wire.DEVICE_GET_IRQ_INFO] = good(info)

    link = fake.link()

    assert link.vectors == vectors
    link.close()


def test_interrupt_information_that_is_too_short(fake: FakeServer) -> None:
    fake.answers[wire.DEVICE_GET_IRQ_INFO] = good(b"x" * 15)

    assert "DEVICE_GET_IRQ_INFO with 15 bytes of payload instead of 16" in fake.error_of_link()


# Registers.


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda reply: reply[:-1], "REGION_READ with 19 bytes of payload instead of 20"),
        (lambda reply: b"", "REGION_READ with 0 bytes of payload instead of 20"),
        (lambda reply: reply + b"x", "REGION_READ with 21 bytes of payload instead of 20"),
        (lambda reply: b"\xff" + reply[1:], "something else than the 4 bytes at 0x1c of region 0"),
    ],
)
def test_register_whose_reply_is_another_one(fake: FakeServer, change: object, what: str) -> None:
    link = fake.link()

    def wrong(said: Said) -> Iterable[Part]:
        payload = change(said.payload + bytes(4))  # type: ignore[operator]
        return [wire.reply(said.message_id, said.command, payload)]

    fake.answers[wire.REGION_READ] = wrong

    with pytest.raises(LinkError) as caught:
        link.read(0x1C, 4)

    assert what in str(caught.value)
    link.close()


def test_connection_that_broke_stays_broken(fake: FakeServer) -> None:
    link = fake.link()
    fake.answers[wire.REGION_READ] = good()
    with pytest.raises(LinkError) as first:
        link.read(0, 4)
    said = len(fake.said)

    for again in (lambda: link.write(0, 4, 1), link.settle, lambda: link.wait(lambda: False)):
        with pytest.raises(LinkError) as later:
            again()
        assert str(later.value) == str(first.value)

    assert len(fake.said) == said
    link.close()


def test_refused_access_leaves_the_connection_as_it_is(fake: FakeServer) -> None:
    link = fake.link()
    write = fake.answers[wire.REGION_WRITE]
    fake.answers[wire.REGION_WRITE] = refused(22)
    with pytest.raises(LinkError, match="the server refuses REGION_WRITE: Invalid argument"):
        link.write(0x14, 4, 1)
    fake.answers[wire.REGION_WRITE] = write

    link.write(0x14, 4, 1)

    assert fake.registers[0x14] == 1
    link.close()
