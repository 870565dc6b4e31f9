"""Checks of commands that change or compare data without moving it to the host: Write Zeroes,
Dataset Management, Compare."""

from __future__ import annotations

import struct

from nvmelab.spec.identify import ONCS_COMPARE, ONCS_DATASET_MANAGEMENT, ONCS_WRITE_ZEROES
from nvmelab.spec.nvm import DatasetManagement, Read, WriteZeroes
from nvmelab.spec.status import Status
from nvmelab.suite.arena import Medium
from nvmelab.suite.base import Bench, check
from nvmelab.suite.data import same

COMPARE = 0x05
COMPARE_FAILURE, COMMAND_SIZE_LIMIT_EXCEEDED = 0x285, 0x183
DEALLOCATE = 1 << 2
DEALLOCATED = "NVM Command Set 1.2, 3.3.3.2.1"
ZEROES = "NVM Command Set 1.2, 3.3.8"


class _Written:
    """Some blocks of noise at a place drawn from the seed."""

    def __init__(self, bench: Bench, blocks: int) -> None:
        self.bench = bench
        self.medium = medium = Medium(bench)
        self.block = medium.block
        self.blocks = min(blocks, medium.blocks)
        self.first = bench.random.randrange(medium.blocks - self.blocks + 1)
        self.content = bytearray(bench.random.randbytes(self.blocks * self.block))
        medium.store(self.first, bytes(self.content))

    def part(self, at: int, nlb: int) -> slice:
        """The bytes of these blocks."""
        return slice(at * self.block, (at + nlb) * self.block)

    def load(self) -> bytes:
        return self.medium.load(self.first, self.blocks)


def _supports(bench: Bench, bit: int, what: str) -> None:
    if not bench.nvme.identify().oncs & bit:
        bench.skip(f"the controller does not support {what} (ONCS)")


@check(
    "data.write-zeroes",
    ref=ZEROES,
    expected="the blocks of a Write Zeroes read as zeroes until they are written, and no others",
)
def write_zeroes(bench: Bench) -> None:
    """Write Zeroes of ranges of any size, with and without deallocation, among writes."""
    _supports(bench, ONCS_WRITE_ZEROES, "Write Zeroes")
    written = _Written(bench, 128)
    qpair, block = written.medium.qpair, written.block
    deallocates = written.medium.namespace.identity.dlfeat >> 3 & 1
    for number in range(24):
        nlb = bench.random.choice((1, 2, 7, 8, 9, 16, 33))
        nlb = min(nlb, written.blocks, written.medium.limit // block)
        at = bench.random.randrange(written.blocks - nlb + 1)
        slba = written.first + at
        data = bytes(nlb * block)
        if number % 3 == 2:
            data = bench.random.randbytes(nlb * block)
            qpair.write(1, slba=slba, data=data, block=block).check()
        else:
            deac = deallocates & number
            qpair.submit(WriteZeroes(nsid=1, slba=slba, nlb=nlb, deac=deac)).check()
        written.content[written.part(at, nlb)] = data
        if number % 6 == 5:
            what = f"after {number + 1} writes and Write Zeroes, from LBA {written.first} on"
            same(bench, written.load(), written.content, block, what, ZEROES)
    # The last block of all.
    last = written.medium.blocks - 1
    qpair.write(1, slba=last, data=b"\x55" * block, block=block).check()
    qpair.write_zeroes(1, slba=last).check()
    same(bench, written.medium.load(last, 1), bytes(block), block, f"LBA {last}", ZEROES)


def _ranges(medium: Medium, bench: Bench, ranges: list[tuple[int, int]], offset: int) -> None:
    """Deallocate (SLBA, blocks) each, with the list of ranges at that offset of a page."""
    data = b"".join(struct.pack("<IIQ", 0, nlb, slba) for slba, nlb in ranges)
    buffer = bench.nvme.buffer(len(data), offset=offset, scattered=True)
    buffer.write(data)
    prp1, prp2 = buffer.prps()
    command = DatasetManagement(nsid=1, nr=len(ranges), attributes=DEALLOCATE, prp1=prp1, prp2=prp2)
    pending = medium.qpair.submit(command, buffer=buffer).wait()
    if pending.status == COMMAND_SIZE_LIMIT_EXCEEDED:
        bench.skip(f"the controller takes no {len(ranges)} ranges at once")
    pending.check()


@check(
    "data.deallocate",
    ref=DEALLOCATED,
    expected="deallocated blocks read as they were or as DLFEAT says, always the same; others are "
    "not changed",
)
def deallocate(bench: Bench) -> None:
    """Deallocation of several ranges at once, the list of them across a page boundary."""
    _supports(bench, ONCS_DATASET_MANAGEMENT, "Dataset Management")
    written = _Written(bench, 160)
    block = written.block
    if written.blocks < 160:
        bench.skip(f"the namespace has {written.blocks} blocks")
    dlfeat = written.medium.namespace.identity.dlfeat & 7
    fills = {1: (0,), 2: (0xFF,)}.get(dlfeat, (0, 0xFF))
    values = [bytes([fill]) * block for fill in fills]
    gone: set[int] = set()
    for offset in (0, 4096 - 16, 4092):
        ranges = []
        for start in (0, 40, 80, 120):
            at, nlb = start + bench.random.randrange(16), bench.random.choice((1, 7, 8, 16))
            ranges.append((written.first + at, nlb))
            gone.update(range(at, at + nlb))
        _ranges(written.medium, bench, ranges, offset)
    first = written.load()
    for at in range(written.blocks):
        seen, was = first[written.part(at, 1)], bytes(written.content[written.part(at, 1)])
        if at not in gone:
            same(bench, seen, was, block, f"LBA {written.first + at}, which was not deallocated")
        else:
            bench.expect(
                seen == was or seen in values,
                f"LBA {written.first + at} was deallocated, DLFEAT is {dlfeat}, and it reads as "
                f"{seen[:16].hex(' ')} ...",
            )
    again = written.load()
    for at in gone:
        before, after = first[written.part(at, 1)], again[written.part(at, 1)]
        # What was not deallocated at first may be later.
        bench.expect(
            before == after or before == written.content[written.part(at, 1)],
            f"LBA {written.first + at} was deallocated and reads as something else each time",
        )
    for at in sorted(gone)[:8]:
        data = bench.random.randbytes(block)
        written.medium.qpair.write(1, slba=written.first + at, data=data, block=block).check()
        seen = written.medium.load(written.first + at, 1)
        what = f"LBA {written.first + at}, written after it was deallocated"
        same(bench, seen, data, block, what)


@check(
    "data.compare",
    ref="NVM Command Set 1.2, 3.3.1",
    expected="Compare succeeds if and only if the data is equal",
)
def compare(bench: Bench) -> None:
    """Compare with equal data, and with data that differs in one bit."""
    supported = bench.nvme.identify().oncs & ONCS_COMPARE
    written = _Written(bench, 64)
    for number in range(12):
        nlb = min(bench.random.choice((1, 2, 8, 17)), written.medium.limit // written.block)
        at = bench.random.randrange(written.blocks - nlb + 1)
        changed = bytearray(written.content[written.part(at, nlb)])
        bits = 8 * len(changed)
        wrong = number % 2 == 1 or not supported
        if wrong:
            bit = bench.random.choice((0, bits - 1, bench.random.randrange(bits)))
            changed[bit // 8] ^= 1 << bit % 8
        buffer = bench.nvme.buffer(len(changed), offset=4 * (number % 4), scattered=True)
        buffer.write(bytes(changed))
        prp1, prp2 = buffer.prps()
        entry = bytearray(
            Read(nsid=1, slba=written.first + at, nlb=nlb, prp1=prp1, prp2=prp2).encode()
        )
        entry[0] = COMPARE
        pending = written.medium.qpair.submit(bytes(entry), buffer=buffer).wait()
        if supported:
            wanted = COMPARE_FAILURE if wrong else Status.SUCCESS
            met = pending.status == wanted
        else:
            met = not pending.ok
        bench.expect(
            met,
            f"a Compare of {nlb} blocks with {'other' if wrong else 'the same'} data, which ONCS "
            f"says is {'' if supported else 'not '}supported, got {pending.status.label} "
            f"({int(pending.status):#05x})",
        )
    same(bench, written.load(), written.content, written.block, "after Compare")
