"""Checks of data: what is read is what was written last, whatever else goes on."""

from __future__ import annotations

from functools import partial

from nvmelab.host.buffers import ENTRIES_PER_PAGE, PAGE, Buffer
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Flow, Pending
from nvmelab.link.base import Storage
from nvmelab.spec.nvm import Read, Write
from nvmelab.suite.arena import Medium
from nvmelab.suite.base import Bench, check

IO = "NVM Command Set 1.2, 3.3.4 and 3.3.6"
FLOWS: tuple[Flow, ...] = ("inflight", "sqhd")
RANDOM_COMMANDS = 400
Bytes = bytes | bytearray


def difference(seen: Bytes, wanted: Bytes, block: int) -> str:
    """Where two pieces of data of the same size first differ, in words; empty if nowhere."""
    if seen == wanted:
        return ""
    at = next(at for at, byte in enumerate(seen) if byte != wanted[at])
    return f"byte {at % block} of block {at // block} is {seen[at]:#04x}, not {wanted[at]:#04x}"


def same(bench: Bench, seen: Bytes, wanted: Bytes, block: int, what: str, ref: str = IO) -> None:
    """`what` gave the data that was wanted."""
    wrong = difference(seen, wanted, block)
    bench.expect(not wrong, f"{what}: {wrong}", ref=ref)


class _Flight:
    """A command that is outstanding, and what it must have done when it ends."""

    def __init__(self, pending: Pending, slba: int, nlb: int, data: bytes, write: bool) -> None:
        self.pending = pending
        self.slba = slba
        self.nlb = nlb
        self.data = data
        self.write = write

    def overlaps(self, slba: int, nlb: int) -> bool:
        return self.slba < slba + nlb and slba < self.slba + self.nlb


class _Model:
    """A stretch of a namespace, and what belongs in it."""

    def __init__(self, bench: Bench, medium: Medium, qpairs: list[Qpair]) -> None:
        self.bench = bench
        self.medium = medium
        self.qpairs = qpairs
        self.block = medium.block
        self.most = medium.limit // self.block
        self.blocks = min(4 * self.most, medium.blocks)
        self.first = bench.random.randrange(medium.blocks - self.blocks + 1)
        self.content = bytearray(bench.random.randbytes(self.blocks * self.block))
        self.flights: list[_Flight] = []
        medium.store(self.first, bytes(self.content))

    def _size(self) -> int:
        """Blocks of the next command: small ones mostly, and one of the largest at a time, because
        memory is dear."""
        source = self.bench.random
        few = min(self.most, 64 * 1024 // self.block or 1)
        if source.random() < 0.07 and not any(flight.nlb > few for flight in self.flights):
            return source.choice((self.most, max(1, self.most - 1)))
        return min(few, source.choice((1, 1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 64, 127)))

    def _buffer(self, size: int) -> Buffer:
        source = self.bench.random
        small = size <= 64 * 1024
        offset = source.choice((0, 4 * source.randrange(PAGE // 4)))
        last = ENTRIES_PER_PAGE - max(1, (offset + size) // PAGE)
        return self.bench.nvme.pool.buffer(
            size,
            offset=offset,
            scattered=small and source.random() < 0.5,
            list_offset=8 * source.randint(0, last),
        )

    def submit(self) -> bool:
        """Another command, if there is room in some queue and a stretch that nobody works on."""
        source = self.bench.random
        qpair = source.choice(self.qpairs)
        nlb = self._size()
        slba = self.first + source.randrange(self.blocks - nlb + 1)
        if not qpair.sq.room or any(flight.overlaps(slba, nlb) for flight in self.flights):
            return False
        size, at = nlb * self.block, (slba - self.first) * self.block
        buffer = self._buffer(size)
        prp1, prp2 = buffer.prps()
        write = source.random() < 0.5
        command: Read | Write
        if write:
            data = source.randbytes(size)
            buffer.write(data)
            self.content[at : at + size] = data
            command = Write(nsid=1, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2)
        else:
            data = bytes(self.content[at : at + size])
            command = Read(nsid=1, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2)
        pending = qpair.submit(command, buffer=buffer)
        self.flights.append(_Flight(pending, slba, nlb, data, write))
        return True

    def land(self) -> None:
        """Look after what has ended."""
        for qpair in self.qpairs:
            qpair.cq.service()
        for flight in [flight for flight in self.flights if flight.pending.done]:
            self.flights.remove(flight)
            seen = flight.pending.data()
            kind = "the buffer after a Write" if flight.write else "a Read"
            what = f"{kind} of {flight.nlb} blocks at LBA {flight.slba}"
            same(self.bench, seen, flight.data, self.block, what)

    def verify(self) -> None:
        """All of it is as it should be."""
        seen = self.medium.load(self.first, self.blocks)
        same(self.bench, seen, self.content, self.block, f"at the end, from LBA {self.first} on")


@check(
    "data.random",
    ref=IO,
    expected="every Read returns what was written last, on any queue, in any shape and number",
)
def random_io(bench: Bench) -> None:
    """Reads and writes of many sizes and shapes on several queue pairs, against a model."""
    medium = Medium(bench)
    qpairs = [medium.qpair]
    for flow in FLOWS * 2:
        if len(qpairs) < bench.nvme.io_queues:
            entries = min(bench.random.randint(2, 16), bench.nvme.cap.mqes)
            cq_entries = min(bench.random.randint(2, 16), bench.nvme.cap.mqes)
            qpairs.append(
                bench.nvme.create_qpair(entries=entries, cq_entries=cq_entries, flow=flow)
            )
    model = _Model(bench, medium, qpairs)
    for _ in range(RANDOM_COMMANDS):
        while not model.submit():
            if model.flights:
                bench.random.choice(model.flights).pending.wait()
            model.land()
        if len(model.flights) > 24 or bench.random.random() < 0.1:
            model.flights[0].pending.wait()
            model.land()
    for qpair in qpairs:
        qpair.wait_all()
    model.land()
    model.verify()


@check(
    "data.overlapping-writes",
    ref=IO,
    expected="of two writes of a block, one after the other, the second one stays",
)
def overlapping_writes(bench: Bench) -> None:
    """Writes that overlap the one before, on two queue pairs in turn, each after the other."""
    medium = Medium(bench)
    qpairs = [medium.qpair]
    if bench.nvme.io_queues > 1:
        qpairs.append(bench.nvme.create_qpair(entries=2))
    block = medium.block
    most = min(24, medium.limit // block)
    blocks = min(48, medium.blocks)
    content = bytearray(bench.random.randbytes(blocks * block))
    medium.store(0, bytes(content))
    at = 0
    for number in range(60):
        nlb = bench.random.randint(1, min(most, blocks))
        # Near the last one, so that some begin within it, end within it, or have it within them.
        at = max(0, min(blocks - nlb, at + bench.random.randint(-most, most) // 2))
        data = bench.random.randbytes(nlb * block)
        content[at * block : (at + nlb) * block] = data
        qpairs[number % len(qpairs)].write(1, slba=at, data=data, block=block).check()
        if number % 10 == 9:
            seen = medium.load(0, blocks)
            same(bench, seen, content, block, f"after {number + 1} writes, from LBA 0 on")


@check(
    "data.namespaces",
    ref="Base 2.2, 3.2.1 and NVM Command Set 1.2, 3.3.6",
    expected="each namespace has blocks of its own",
)
def namespaces(bench: Bench) -> None:
    """The same LBAs of several namespaces, written at the same time with different data."""
    found = bench.nvme.active_namespaces()[:3]
    if len(found) < 2:
        bench.skip("there is one namespace")
    media = [Medium(bench, nsid) for nsid in found if bench.nvme.io_queues >= len(found)]
    if not media:
        bench.skip(f"the controller has {bench.nvme.io_queues} I/O queues")
    last = min(medium.blocks for medium in media) - 1
    qpair = media[0].qpair
    slbas = {0, last, *(bench.random.randrange(last + 1) for _ in range(6))}
    wanted: dict[tuple[int, int], bytes] = {}
    sent: list[Pending] = []
    for slba in slbas:
        for medium in bench.random.sample(media, len(media)):
            data = wanted[medium.nsid, slba] = bench.random.randbytes(medium.block)
            sent.append(qpair.write(medium.nsid, slba=slba, data=data, block=medium.block))
    for pending in sent:
        pending.check()
    for medium in media:
        for slba in slbas:
            seen = medium.load(slba, 1)
            what = f"LBA {slba} of namespace {medium.nsid}, written at the same time as others"
            same(bench, seen, wanted[medium.nsid, slba], medium.block, what)


@check(
    "data.first-and-last",
    ref=IO + ", 4.1.5.1 (NSZE)",
    expected="the first and the last block of a namespace are blocks like any other",
)
def first_and_last(bench: Bench) -> None:
    """The first and last blocks of the namespace, alone and with others, and none is another."""
    medium = Medium(bench)
    block, last = medium.block, medium.blocks - 1
    if last < 16:
        bench.skip(f"the namespace has {medium.blocks} blocks")
    # Powers of two from both ends, and the middle: none may be an alias of another.
    powers = [1 << bit for bit in range(last.bit_length()) if 1 << bit < last]
    slbas = sorted({0, last, last // 2, *powers, *(last - power for power in powers)})
    wanted = {slba: bench.random.randbytes(block) for slba in slbas}
    sent = [
        medium.qpair.write(1, slba=slba, data=data, block=block) for slba, data in wanted.items()
    ]
    for pending in sent:
        pending.check()
    for slba, data in wanted.items():
        same(bench, medium.load(slba, 1), data, block, f"LBA {slba} of {medium.blocks}")
    nlb = min(8, medium.limit // block)
    for slba in (0, last + 1 - nlb):
        data = bench.random.randbytes(nlb * block)
        medium.qpair.write(1, slba=slba, data=data, block=block).check()
        seen = medium.qpair.read(1, slba=slba, nlb=nlb, block=block).data()
        same(bench, seen, data, block, f"{nlb} blocks at LBA {slba} of {medium.blocks}")


@check(
    "data.forced-access",
    ref=IO + " (FUA)",
    expected="FUA changes nothing of what is written and read",
)
def forced_access(bench: Bench) -> None:
    """Writes and reads with FUA set, mixed with others."""
    medium = Medium(bench)
    block = medium.block
    nlb = min(9, medium.limit // block)
    for number in range(24):
        slba = bench.random.randrange(medium.blocks - nlb + 1)
        data = bench.random.randbytes(nlb * block)
        medium.qpair.write(1, slba=slba, data=data, block=block, fua=number % 4 < 3).check()
        buffer = bench.nvme.buffer(nlb * block, offset=4 * (number % 3))
        prp1, prp2 = buffer.prps()
        fua = int(number % 2)
        read = Read(nsid=1, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2, fua=fua)
        seen = medium.qpair.submit(read, buffer=buffer).data()
        what = f"a Read with FUA {fua} of LBA {slba}, written with FUA {int(number % 4 < 3)}"
        same(bench, seen, data, block, what)


@check(
    "data.flush",
    ref="Base 2.2, 7.2 and NVM Command Set 1.2, 3.3.6",
    expected="Flush succeeds and changes no data, with writes before, behind and beside it",
)
def flush(bench: Bench) -> None:
    """Flush commands among writes."""
    medium = Medium(bench)
    block = medium.block
    nlb = min(4, medium.limit // block)
    count = min(20, medium.blocks // nlb)
    content = [b""] * count
    sent: list[Pending] = []
    for _ in range(3):
        for number in bench.random.sample(range(count), count):
            content[number] = data = bench.random.randbytes(nlb * block)
            sent.append(medium.qpair.write(1, slba=number * nlb, data=data, block=block))
            if bench.random.random() < 0.3:
                sent.append(medium.qpair.flush(1))
        medium.qpair.wait_all()
        medium.qpair.flush(1).check()
    for pending in sent:
        pending.check()
    seen = medium.load(0, count * nlb)
    same(bench, seen, b"".join(content), block, "after Flush, from LBA 0 on")


@check(
    "data.after-reset",
    ref="Base 2.2, 3.7.2 and 7.2",
    expected="what was written and flushed is there after a controller reset",
)
def after_reset(bench: Bench) -> None:
    """Data that was written, flushed, and read after the controller was reset and enabled."""
    medium = Medium(bench)
    nlb = min(64, medium.limit // medium.block)
    slba = bench.random.randrange(medium.blocks - nlb + 1)
    data = bench.random.randbytes(nlb * medium.block)
    medium.store(slba, data)
    medium.qpair.flush(1).check()
    bench.nvme.start()
    seen = Medium(bench).load(slba, nlb)
    same(bench, seen, data, medium.block, f"after a controller reset, LBA {slba}")


@check(
    "data.buffer-reuse",
    ref="Base 2.2, 3.3.1.2 and NVM Command Set 1.2, 3.3.4",
    expected="when a command is complete its data has been moved, and its buffer is the host's",
)
def buffer_reuse(bench: Bench) -> None:
    """One buffer for many commands, changed as soon as each is complete."""
    medium = Medium(bench)
    block, qpair = medium.block, medium.qpair
    nlb = min(8, medium.limit // block)
    count = min(24, medium.blocks // nlb)
    buffer = bench.nvme.buffer(nlb * block, offset=516, scattered=True)
    data = [bench.random.randbytes(nlb * block) for _ in range(count)]
    for number in range(count):
        buffer.write(data[number])
        qpair.write(1, slba=number * nlb, nlb=nlb, buffer=buffer).check()
        buffer.fill(0xEE)
    for number in bench.random.sample(range(count), count):
        buffer.fill(0xEE)
        read = qpair.read(1, slba=number * nlb, nlb=nlb, buffer=buffer, block=block)
        what = f"a buffer used again at once, LBA {number * nlb}"
        same(bench, read.data(), data[number], block, what)
        qpair.write(1, slba=number * nlb, nlb=nlb, buffer=buffer).check()
    buffer.fill(0xEE)
    bench.expect(
        buffer.read() == b"\xee" * buffer.size,
        "a buffer was changed after its last command was complete",
    )
    seen = medium.load(0, count * nlb)
    same(bench, seen, b"".join(data), block, "after all, from LBA 0 on")


@check(
    "data.held-read",
    ref=IO,
    expected="each of several reads gets its own data, in whatever order the storage answers",
)
def held_read(bench: Bench) -> None:
    """Reads that the storage holds back, released in an order drawn from the seed."""
    storage = bench.storage()
    found = bench.nvme.active_namespaces()[: min(4, bench.nvme.io_queues)]
    media = [Medium(bench, nsid) for nsid in found]
    nlb = min(4, *(medium.blocks for medium in media))
    wanted = [bench.random.randbytes(nlb * medium.block) for medium in media]
    for medium, data in zip(media, wanted, strict=True):
        medium.store(0, data)
    qpair = media[0].qpair
    storage.hold = True
    try:
        for _ in range(6):
            reads: list[Pending] = []
            # Those of one disk might be answered together: one for each.
            for medium in media:
                reads.append(qpair.read(medium.nsid, slba=0, nlb=nlb, block=medium.block))
                bench.link.wait(partial(_holds, storage, len(reads)))
                if storage.held() != len(reads):
                    bench.skip("the storage is not asked once for each read")
            _release_each(bench, qpair, reads, wanted)
    finally:
        storage.let_go()


def _holds(storage: Storage, count: int) -> bool:
    return storage.held() >= count


def _release_each(bench: Bench, qpair: Qpair, reads: list[Pending], wanted: list[bytes]) -> None:
    """Release one after the other, and look at what has come."""
    storage = bench.storage()
    left = len(reads)

    def fewer() -> bool:
        return qpair.outstanding < left

    while storage.held():
        left = qpair.outstanding
        storage.release(bench.random.randrange(storage.held()))
        qpair.cq.wait(fewer, "the completion of a read that the storage has answered")
        for number, read in enumerate(reads):
            if read.done:
                assert isinstance(read.command, Read)
                block = len(wanted[number]) // read.command.nlb
                what = f"the Read number {number} of several that were held back"
                same(bench, read.data(), wanted[number], block, what)
