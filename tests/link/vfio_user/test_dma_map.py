"""DMA_MAP: files into guest memory, what is refused, and the two ways RAM is out of reach."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import pytest

from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.dma import DmaRegions, RamUnreachable
from nvmelab.memory import GuestMemory, MemoryFault
from tests.link.vfio_user.conftest import Peer, Stub, map_request, open_fds, ram, unmap_request

PAGE = 4096
EACCES, EEXIST, EINVAL, ENOTSUP = 13, 17, 22, 95


def test_memory_is_shared_both_ways(peer: Peer, function: Stub) -> None:
    fd = ram(2 * PAGE)

    reply = peer.ask(wire.DMA_MAP, map_request(0x10000, PAGE, offset=PAGE), fds=[fd])
    os.pwrite(fd, b"ping", PAGE)
    function.memory.write(0x10004, b"pong")

    assert (reply.errno, reply.payload) == (None, b"")
    assert function.memory.read(0x10000, 4) == b"ping"
    assert os.pread(fd, 4, PAGE + 4) == b"pong"
    os.close(fd)


def test_the_descriptor_itself_is_closed(peer: Peer) -> None:
    fd = ram(PAGE)
    before = open_fds()

    peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd])

    # One is left: the duplicate that Python's mmap keeps as long as the mapping.
    assert open_fds() == before + 1
    os.close(fd)


def test_read_only_region_cannot_be_written(peer: Peer, function: Stub) -> None:
    fd = ram(PAGE)

    peer.ask(wire.DMA_MAP, map_request(0, PAGE, flags=1), fds=[fd])

    assert function.memory.read(0, 1) == b"\0"
    with pytest.raises(MemoryFault):
        function.memory.write(0, b"x")
    os.close(fd)


def test_region_without_a_file_is_accepted_and_cannot_be_reached(
    peer: Peer, function: Stub
) -> None:
    assert peer.ask(wire.DMA_MAP, map_request(0xA0000, PAGE)).errno is None

    with pytest.raises(MemoryFault):
        function.memory.read(0xA0000, 1)


@pytest.mark.parametrize(
    ("address", "size"),
    [(0x3000, PAGE), (0x4000, PAGE), (0x1000, 0x4000), (0x3000, 0x8000), (0x3000, 0x2000)],
    ids=["first-page", "last-page", "from-below", "around", "same"],
)
@pytest.mark.parametrize("with_fd", [True, False])
def test_overlap_is_refused(peer: Peer, address: int, size: int, with_fd: bool) -> None:
    fd = ram(0x10000)
    peer.ask(wire.DMA_MAP, map_request(0x3000, 0x2000))

    fds = [fd] if with_fd else []
    assert peer.ask(wire.DMA_MAP, map_request(address, size), fds=fds).errno == EEXIST
    os.close(fd)


def test_neighbours_do_not_overlap(peer: Peer, function: Stub) -> None:
    fd = ram(3 * PAGE)
    peer.ask(wire.DMA_MAP, map_request(PAGE, PAGE, offset=PAGE), fds=[fd])

    assert (
        peer.ask(wire.DMA_MAP, map_request(2 * PAGE, PAGE, offset=0x2000), fds=[fd]).errno is None
    )
    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd]).errno is None

    assert len(function.memory.regions) == 3
    os.close(fd)


@pytest.mark.parametrize(
    "request_",
    [
        map_request(0, PAGE, argsz=31),
        map_request(0, PAGE, flags=0),
        map_request(0, PAGE, flags=0x13),
        map_request(0, 0),
        map_request(0, 100),
        map_request(8, PAGE),
        map_request(0, PAGE, offset=8),
        map_request(0, 3 * PAGE),
        map_request(0, PAGE, offset=2 * PAGE),
        map_request((1 << 64) - PAGE, 2 * PAGE),
        map_request(0, (1 << 64) - PAGE),
        map_request(0, PAGE, offset=(1 << 64) - PAGE),
        map_request(0, PAGE)[:31],
    ],
    ids=[
        "argsz",
        "no-access",
        "unknown-flag",
        "size-zero",
        "size-odd",
        "address-odd",
        "offset-odd",
        "file-too-short",
        "offset-behind-the-end",
        "wraps",
        "huge",
        "huge-offset",
        "cut",
    ],
)
def test_malformed_request_is_refused(peer: Peer, function: Stub, request_: bytes) -> None:
    fd = ram(2 * PAGE)
    before = open_fds()

    assert peer.ask(wire.DMA_MAP, request_, fds=[fd]).errno == EINVAL

    assert function.memory.regions == []
    assert open_fds() == before
    os.close(fd)


def test_two_descriptors_are_refused(peer: Peer) -> None:
    fd = ram(PAGE)
    before = open_fds()

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd, fd]).errno == EINVAL
    assert open_fds() == before
    os.close(fd)


def test_descriptor_that_is_no_file_is_refused(peer: Peer) -> None:
    with open("/dev/zero", "r+b", buffering=0) as zero:
        assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[zero.fileno()]).errno == EINVAL


def test_read_only_descriptor_for_a_writable_region_is_refused(peer: Peer) -> None:
    fd = ram(PAGE)
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[read_only]).errno == EACCES

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE, flags=1), fds=[read_only]).errno is None
    os.close(read_only)
    os.close(fd)


def test_file_that_must_not_be_mapped_is_refused(peer: Peer) -> None:
    fd = ram(PAGE)

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE, flags=0xB), fds=[fd]).errno == ENOTSUP
    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE, flags=0x7), fds=[fd]).errno is None
    os.close(fd)


def test_mapped_memfd_cannot_be_cut_short_any_more(peer: Peer) -> None:
    fd = ram(2 * PAGE)

    peer.ask(wire.DMA_MAP, map_request(0, 2 * PAGE), fds=[fd])

    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(fd, PAGE)
    os.close(fd)


@pytest.mark.skipif(
    int(Path("/proc/sys/vm/nr_hugepages").read_text()) == 0, reason="no huge pages are set aside"
)
def test_part_of_a_huge_page(peer: Peer, function: Stub) -> None:
    fd = os.memfd_create("ram", os.MFD_HUGETLB)
    os.ftruncate(fd, 2 << 30)
    guest = mmap.mmap(fd, os.fstat(fd).st_blksize)
    guest[0x100000:0x100004] = b"ping"

    assert (
        peer.ask(wire.DMA_MAP, map_request(0x100000, PAGE, offset=0x100000), fds=[fd]).errno is None
    )

    assert function.memory.read(0x100000, 4) == b"ping"
    guest.close()
    os.close(fd)


def test_memfd_that_cannot_be_sealed_is_mapped_all_the_same(peer: Peer) -> None:
    fd = ram(PAGE, sealable=False)

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd]).errno is None
    os.close(fd)


def test_private_mapping_of_the_peer_is_refused_with_advice(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    fd = ram(PAGE)
    # Client and server are one process here, so this is the peer's own mapping.
    guest = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd]).errno == EINVAL

    [line] = [record.getMessage() for record in caplog.records]
    assert "guest RAM is private (share=off): start QEMU with -object memory-backend" in line
    guest.close()
    os.close(fd)


def test_after_a_private_mapping_the_device_is_refused_too(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    fd, shared = ram(PAGE), ram(PAGE)
    guest = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
    peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd])
    peer.ask(wire.DMA_MAP, map_request(PAGE, PAGE), fds=[shared])

    info = peer.ask(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0))

    assert info.errno == EINVAL
    assert len(caplog.records) == 1
    guest.close()
    os.close(fd)
    os.close(shared)


def test_refused_private_mapping_can_be_unmapped_as_qemu_does(peer: Peer, function: Stub) -> None:
    fd = ram(PAGE)
    guest = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
    peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd])

    assert function.memory.regions == []
    assert peer.ask(wire.DMA_UNMAP, unmap_request(0, PAGE)).errno is None
    guest.close()
    os.close(fd)


@pytest.mark.parametrize(
    ("flags", "access"),
    [
        (mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        (mmap.MAP_PRIVATE, mmap.PROT_READ),
    ],
    ids=["shared", "private-but-only-read"],
)
def test_harmless_mappings_of_the_peer_are_accepted(peer: Peer, flags: int, access: int) -> None:
    fd = ram(PAGE)
    guest = mmap.mmap(fd, PAGE, flags=flags, prot=access)

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd]).errno is None
    guest.close()
    os.close(fd)


def test_private_beside_shared_mapping_is_accepted(peer: Peer) -> None:
    fd = ram(PAGE)
    private = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
    shared = mmap.mmap(fd, PAGE, flags=mmap.MAP_SHARED)

    assert peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd]).errno is None
    private.close()
    shared.close()
    os.close(fd)


def test_peer_whose_maps_cannot_be_read_is_trusted() -> None:
    fd = ram(PAGE)
    private = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
    dma = DmaRegions(GuestMemory(), peer_pid=0)

    dma.map(3, 0, 0, PAGE, fd)

    dma.check_ram()
    private.close()
    os.close(fd)


def test_private_mapping_of_another_process_is_seen() -> None:
    fd = ram(PAGE)
    ready, say_ready = os.pipe()
    finished, say_finished = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(say_finished)
        guest = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
        os.write(say_ready, b"x")
        os.read(finished, 1)  # returns when the parent closes its end, or dies
        guest.close()
        os._exit(0)
    os.read(ready, 1)

    with pytest.raises(RamUnreachable):
        DmaRegions(GuestMemory(), peer_pid=pid).map(3, 0, 0, PAGE, fd)

    os.close(say_finished)
    os.waitpid(pid, 0)
    for each in (fd, ready, say_ready, finished):
        os.close(each)
