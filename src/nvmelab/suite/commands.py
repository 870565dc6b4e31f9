"""Checks of commands as such: their identifiers, the status of bad ones, and interrupts."""

from __future__ import annotations

from functools import partial

from nvmelab.host.buffers import PAGE, Buffer
from nvmelab.host.namespaces import Namespace
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Pending
from nvmelab.spec.admin import CreateIoCq, GetFeatures, Identify
from nvmelab.spec.commands import BROADCAST_NSID, Command
from nvmelab.spec.features import Feature
from nvmelab.spec.identify import ONCS_WRITE_ZEROES, Cns
from nvmelab.spec.nvm import Flush, Read, Write, WriteZeroes
from nvmelab.spec.registers import CQE_SIZE, REVISION_1_3
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.queues import cq_at
from nvmelab.suite.rings import fits, load

RESERVED_OPCODES = (0x03, 0x07, 0x0B, 0x0F, 0x13, 0x1F, 0x40, 0x7B, 0x7E)
"""Listed neither by Base 2.2, Figure 556, nor by an I/O command set that a namespace with a block
size could have."""
NSIDS = "Base 2.2, 3.2.1.2 and 3.2.1.5"


def _words(command: Command, changes: dict[int, int]) -> bytes:
    """The command with ones in these dwords: the bits of each mask are set."""
    data = bytearray(command.encode())
    for number, mask in changes.items():
        at = 4 * number
        word = int.from_bytes(data[at : at + 4], "little") | mask
        data[at : at + 4] = word.to_bytes(4, "little")
    return bytes(data)


def _read(buffer: Buffer, nsid: int = 1) -> Read:
    return Read(nsid=nsid, slba=0, nlb=1, prp1=buffer.addr)


def _as_sent(bench: Bench, pending: Pending, good: bool) -> None:
    """A command that was good succeeded, one for no namespace did not: nobody else's status."""
    bench.expect(
        pending.ok == good,
        f"{pending.label} on SQ {pending.sq.qid} was a {'good' if good else 'bad'} command, and "
        f"its completion says {pending.status.label}",
    )


@check(
    "commands.identifiers",
    ref="Base 2.2, 4.1.1 and 4.2.1 (CID, SQID)",
    expected="any 16-bit command identifier comes back, with its own command's status",
)
def identifiers(bench: Bench) -> None:
    """Command identifiers of every size, on admin and I/O queues, good and bad ones mixed."""
    cids = [0, 1, 0xFF, 0x100, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF]
    cids += [1 << bit for bit in range(1, 15) if bit not in (8, 12)]
    drawn = bench.random.sample(range(0x10000), 60)
    cids += [cid for cid in drawn if cid not in cids]
    bench.random.shuffle(cids)
    qpair = bench.nvme.create_qpair(entries=min(8, bench.nvme.cap.mqes))
    buffer = bench.nvme.buffer(PAGE)
    sent: list[tuple[Pending, bool]] = []
    for cid in cids:
        good = bench.random.random() < 0.6
        command = _read(buffer, nsid=1 if good else 0)
        sent.append((qpair.submit(command, cid=cid, buffer=buffer), good))
    qpair.wait_all()
    for cid in (*cids[:40], 0, 0xFFFE, 0xFFFF):
        # Feature 0 is reserved.
        good = bench.random.random() < 0.6
        fid = Feature.NUMBER_OF_QUEUES if good else 0
        sent.append((bench.nvme.admin.submit(GetFeatures(fid=fid), cid=cid).wait(), good))
    for pending, good in sent:
        _as_sent(bench, pending, good)


@check(
    "commands.same-identifier",
    ref="Base 2.2, 4.1.1 (CID)",
    expected="one identifier may be in use on several submission queues: each completion is that "
    "of its queue",
)
def same_identifier(bench: Bench) -> None:
    """The same identifiers on two submission queues at once, and on the admin queue."""
    if bench.nvme.io_queues < 2:
        bench.skip("the controller has one I/O queue")
    cq = bench.nvme.create_cq(entries=min(8, bench.nvme.cap.mqes))
    qpairs = [bench.nvme.create_sq(entries=min(4, bench.nvme.cap.mqes), cq=cq) for _ in range(2)]
    buffer = bench.nvme.buffer(PAGE)
    for cid in [0, 0xFFFF, *(bench.random.randrange(0x10000) for _ in range(50))]:
        other = cid ^ 0xFF00
        sent: list[tuple[Pending, bool]] = []
        for number in (cid, other):
            for qpair in qpairs:
                good = bench.random.random() < 0.5
                command = _read(buffer, nsid=1 if good else 0)
                sent.append((qpair.submit(command, cid=number, buffer=buffer), good))
        admin = GetFeatures(fid=Feature.NUMBER_OF_QUEUES)
        sent.append((bench.nvme.admin.submit(admin, cid=cid), True))
        for pending, good in sent:
            _as_sent(bench, pending.wait(), good)


@check(
    "commands.opcode",
    ref="Base 2.2, 4.2.3.1 (Invalid Command Opcode)",
    expected="a reserved opcode is refused with Invalid Command Opcode, and the queue goes on",
)
def opcode(bench: Bench) -> None:
    """Reserved opcodes on an I/O queue, between good commands."""
    qpair = bench.nvme.create_qpair(entries=min(4, bench.nvme.cap.mqes))
    buffer = bench.nvme.buffer(PAGE)
    for number in RESERVED_OPCODES:
        data = bytearray(_read(buffer).encode())
        data[0] = number
        pending = qpair.submit(bytes(data), buffer=buffer)
        good = qpair.submit(_read(buffer), buffer=buffer)
        pending.wait()
        bench.expect(
            pending.status == Status.INVALID_COMMAND_OPCODE,
            f"I/O opcode {number:#04x}, which is reserved, got the status {pending.status.label}",
        )
        good.check()
    load(bench, [qpair], 9)


def _repeat(
    bench: Bench, qpair: Qpair, command: Command, times: int, wanted: Status, why: str
) -> None:
    """The same bad command, as many at once as there is room for."""
    # Revisions before 1.3 did not tell these two apart so clearly.
    either = (Status.INVALID_NAMESPACE_OR_FORMAT, Status.INVALID_FIELD_IN_COMMAND)
    statuses = (wanted,) if bench.nvme["vs"] >= REVISION_1_3 else either
    sent = [qpair.submit(command) for _ in range(times)]
    qpair.wait_all()
    for pending in sent:
        bench.expect(
            pending.status in statuses,
            f"{type(command).__name__} with NSID {command.nsid:#x}, which is {why}, got the "
            f"status {pending.status.label}",
            expected=f"{wanted.label} (Base 2.2: shall), and the queue goes on",
        )


@check(
    "commands.namespace",
    ref=NSIDS,
    expected="an NSID that is 0 or above NN is refused with Invalid Namespace or Format, one that "
    "is not active with Invalid Field in Command, and the queue goes on",
)
def namespace(bench: Bench) -> None:
    """Namespaces that do not exist, many times each, in more commands than the queue has room."""
    nvme = bench.nvme
    most = nvme.identify().nn
    active = nvme.active_namespaces()
    qpair = nvme.create_qpair(entries=min(4, nvme.cap.mqes))
    buffer = nvme.buffer(PAGE)
    invalid = [nsid for nsid in (most + 1, 0xFFFF_FFFE) if most < nsid < BROADCAST_NSID]
    for nsid in (0, *invalid):
        why = "0" if nsid == 0 else f"above NN {most}"
        for command in (
            _read(buffer, nsid),
            Write(nsid=nsid, slba=0, nlb=1, prp1=buffer.addr),
            Flush(nsid=nsid),
        ):
            _repeat(bench, qpair, command, 20, Status.INVALID_NAMESPACE_OR_FORMAT, why)
        load(bench, [qpair], 5)
    inactive = [nsid for nsid in range(1, min(most, 1024) + 1) if nsid not in active]
    for nsid in bench.random.sample(inactive, min(2, len(inactive))):
        command = _read(buffer, nsid)
        _repeat(bench, qpair, command, 8, Status.INVALID_FIELD_IN_COMMAND, "not active")
        load(bench, [qpair], 5)
    # What is counted wrong shows when the queue ends.
    nvme.delete_qpair(qpair)


def _outside(bench: Bench, blocks: int) -> list[tuple[int, int]]:
    """(first block, blocks) of ranges that are not within a namespace of `blocks`."""
    beyond = bench.random.randint(blocks + 1, 2**63)
    ranges = [(blocks, 1), (blocks - 1, 2), (beyond, 1), (beyond, 2), (1 << 63, 1)]
    return [*ranges, (2**64 - 1, 1), (2**64 - 1, 2), (2**64 - 2, 2)]


@check(
    "commands.range",
    ref="NVM Command Set 1.2, Figure 17 (LBA Out of Range) and 2.1.1",
    expected="a range that is not within the namespace is refused, and no block is written",
)
def outside(bench: Bench) -> None:
    """Reads, writes and write zeroes beyond the end, across it, and beyond 64 bits."""
    nvme = bench.nvme
    identity, space = nvme.identify(), nvme.namespace(1)
    qpair = nvme.create_qpair(entries=min(4, nvme.cap.mqes))
    limit = (PAGE << nvme.cap.mpsmin) << identity.mdts if identity.mdts else 1 << 32
    watched = (0, 1, space.blocks - 2, space.blocks - 1)
    content = {slba: bench.random.randbytes(space.block) for slba in watched}
    for slba, data in content.items():
        _write(bench, qpair, space, slba, data)
    buffer = nvme.buffer(2 * space.block)
    buffer.fill(0xEE)
    prp1, prp2 = buffer.prps()
    for slba, nlb in _outside(bench, space.blocks):
        commands: list[Command] = []
        if nlb * space.block <= limit:
            commands.append(Read(nsid=1, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2))
            commands.append(Write(nsid=1, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2))
        if identity.oncs & ONCS_WRITE_ZEROES:
            commands.append(WriteZeroes(nsid=1, slba=slba, nlb=nlb))
        for command in commands:
            pending = qpair.submit(command, buffer=buffer).wait()
            bench.expect(
                pending.status in (Status.LBA_OUT_OF_RANGE, Status.INVALID_FIELD_IN_COMMAND),
                f"{type(command).__name__} of {nlb} blocks at {slba:#x}, in a namespace of "
                f"{space.blocks:#x} blocks, got the status {pending.status.label}",
            )
            if isinstance(command, Read):
                buffer.fill(0xEE)
    for slba, data in content.items():
        bench.expect(
            space.read(qpair, slba).data() == data,
            f"block {slba:#x} of {space.blocks:#x} was changed by a write that was refused",
        )


def _write(bench: Bench, qpair: Qpair, space: Namespace, slba: int, data: bytes) -> None:
    pending = space.write(qpair, slba, data).wait()
    if pending.status == Status.NAMESPACE_IS_WRITE_PROTECTED:
        bench.skip("namespace 1 is write protected")
    pending.check()


@check(
    "commands.interrupts",
    ref="Base 2.2, 5.2.1 (IV, IEN)",
    expected="a completion raises the vector of its CQ and no other; a CQ without interrupts, or "
    "without a completion, raises none",
)
def interrupts(bench: Bench) -> None:
    """Two completion queues with vectors of their own and one without interrupts, in turn."""
    nvme, link = bench.nvme, bench.link
    if link.vectors < 4 or nvme.io_queues < 3:
        bench.skip(f"there are {link.vectors} vectors and {nvme.io_queues} I/O queues")
    vectors = bench.random.sample(range(1, link.vectors), 3)
    # Late interrupts of what used these vectors before.
    link.settle()
    for vector in vectors:
        link.take_interrupts(vector)
    cqs = [nvme.create_cq(entries=4, vector=vector) for vector in vectors[:2]]
    base = nvme.pool.zeroed(4 * CQE_SIZE)
    nvme.run(CreateIoCq(qid=3, qsize=4, prp1=base, pc=1, ien=0, iv=vectors[2]))
    cqs.append(cq_at(bench, 3, base, 4))
    qpairs = [nvme.create_sq(entries=4, cq=cq) for cq in cqs]

    nvme.identify()
    _silent(bench, vectors, "without any completion on its CQ")
    for number in (0, 1, 2, 1, 0, 2):
        cq = cqs[number]
        # One at a time: then no interrupt but that one is still on its way.
        load(bench, [qpairs[number]], 1)
        if number < 2:
            raised = partial(_raised, bench, vectors[number])
            why = f"CQ {cq.qid} got a completion, and its vector {vectors[number]} was not raised"
            bench.expect(link.wait(raised), why)
            others = [vector for vector in vectors if vector != vectors[number]]
            _silent(bench, others, f"by a completion on CQ {cq.qid}, which has another")
        else:
            _silent(bench, vectors, f"by a completion on CQ {cq.qid}, which has IEN 0")


def _raised(bench: Bench, vector: int) -> bool:
    return bench.link.take_interrupts(vector) > 0


def _silent(bench: Bench, vectors: list[int], why: str) -> None:
    bench.link.settle()
    for vector in vectors:
        count = bench.link.take_interrupts(vector)
        bench.expect(not count, f"vector {vector} was raised {why}")


@check(
    "commands.interrupt-handler",
    ref="Base 2.2, 5.2.1 (IEN), derived",
    expected="a driver that looks at a queue only after an interrupt finds every completion",
)
def interrupt_handler(bench: Bench) -> None:
    """Small queues that are served by interrupts alone, several hundred commands."""
    if bench.link.vectors < 2:
        bench.skip("there is one vector, which is the admin queue's")
    for entries, commands in ((2, 60), (3, 90), (5, 150), (16, 200)):
        if not fits(bench.nvme, entries):
            continue
        qpair = bench.nvme.create_qpair(entries=entries, interrupts=True)
        load(bench, [qpair], commands)
        bench.nvme.delete_qpair(qpair)


@check(
    "commands.flush",
    ref="Base 2.2, 7.2",
    expected="Flush succeeds for a namespace, and for all of them as VWC says",
)
def flush(bench: Bench) -> None:
    """Flush of one namespace after writes, and with NSID FFFFFFFFh."""
    nvme = bench.nvme
    vwc = nvme.identify().vwc
    qpair = nvme.create_qpair(entries=min(4, nvme.cap.mqes))
    _write(bench, qpair, nvme.namespace(1), 0, bytes(nvme.namespace(1).block))
    for nsid in nvme.active_namespaces()[:4]:
        qpair.flush(nsid).check()
    everything = qpair.flush(BROADCAST_NSID).wait()
    behavior = vwc >> 1 & 3
    if behavior == 3:
        everything.check()
    elif behavior == 2:
        bench.expect(
            everything.status == Status.INVALID_NAMESPACE_OR_FORMAT,
            f"VWC {vwc:#x} says that Flush of NSID FFFFFFFFh is not supported, and it got the "
            f"status {everything.status.label}",
        )
    load(bench, [qpair], 5)


@check(
    "commands.reserved",
    ref="Base 2.2, 4.1.1 and 3.3.1.2, derived",
    expected="a command with ones in its reserved and unused fields is completed once",
)
def reserved(bench: Bench) -> None:
    """Ones in reserved and unused dwords, one at a time and all together."""
    nvme = bench.nvme
    qpair = nvme.create_qpair(entries=min(4, nvme.cap.mqes))
    buffer = nvme.buffer(PAGE)
    ones = 0xFFFF_FFFF
    # PRP2 is not used by a transfer within one page, MPTR not without metadata. FUSE and PSDT
    # would make other commands of these.
    of_read = {0: 0xF << 10, **dict.fromkeys((2, 3, 8, 9, 14, 15), ones)}
    if not _has_metadata(bench):
        of_read |= {4: ones, 5: ones}
    of_flush = {0: 0xF << 10, **dict.fromkeys(range(2, 16), ones)}
    of_admin = {0: 0xF << 10, 2: ones, 3: ones, 12: ones, 13: ones, 15: ones}
    page = nvme.buffer(PAGE)
    for queue, command, fields in (
        (qpair, _read(buffer), of_read),
        (qpair, Flush(nsid=1), of_flush),
        (nvme.admin, Identify(cns=Cns.CONTROLLER, prp1=page.addr), of_admin),
    ):
        sets = [{number: mask} for number, mask in fields.items()]
        for changes in [*sets, fields]:
            # Two of them in a row, then a good one.
            for _ in range(2):
                queue.submit(_words(command, changes), buffer=buffer)
            queue.submit(command, buffer=buffer).check()
        queue.wait_all()
        bench.link.settle()
        entry = queue.cq.peek()
        bench.expect(
            entry is None,
            f"{type(command).__name__} with ones in reserved fields was completed again: {entry}",
        )
    load(bench, [qpair], 9)


def _has_metadata(bench: Bench) -> bool:
    """Blocks of namespace 1 have metadata: MS of the format in use."""
    data = bench.nvme.identify_data(Cns.NAMESPACE, nsid=1)
    at = 128 + 4 * (data[26] & 0xF)
    return any(data[at : at + 2])
