"""Checks of Identify: that each data structure is sound, agrees with what else the device says of
itself, and is written where it belongs."""

from __future__ import annotations

from collections.abc import Callable

from nvmelab.host.buffers import PAGE
from nvmelab.host.queues import Pending
from nvmelab.spec.admin import Identify
from nvmelab.spec.commands import BROADCAST_NSID, Command
from nvmelab.spec.identify import IDENTIFY_SIZE, OACS_NAMESPACE_MANAGEMENT, Cns, DescriptorType
from nvmelab.spec.registers import REVISION_1_2, REVISION_1_3, REVISION_1_4, REVISION_2_2
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check

NAMESPACES_MAX = 8
"""Namespaces that are looked at one by one."""
RESERVED_CNS = (0x0B, 0x0F, 0x60, 0x9A, 0xFF)
CONTROLLER = "Base 2.2, 5.1.13.2.1"
NAMESPACE = "NVM Command Set 1.2, 4.1.5.1"
DESCRIPTORS = "Base 2.2, 5.1.13.2.3"
NSIDS = "Base 2.2, 3.2.1.2 and 3.2.1.5"


def ask(bench: Bench, cns: int, nsid: int = 0) -> tuple[Pending, bytes]:
    """One Identify command, whatever its status, and what is in its buffer afterwards."""
    buffer = bench.nvme.buffer(IDENTIFY_SIZE)
    command = Identify(cns=cns, nsid=nsid, prp1=buffer.addr)
    return bench.nvme.admin.submit(command, buffer=buffer).wait(), buffer.read()


def _number(data: bytes, first: int, last: int) -> int:
    return int.from_bytes(data[first : last + 1], "little")


def _pci_ids(bench: Bench, data: bytes) -> None:
    for name, at, offset, register in (("VID", 0, 0x00, "ID"), ("SSVID", 2, 0x2C, "SS")):
        seen, wanted = _number(data, at, at + 1), bench.link.config_read(offset, 2)
        bench.expect(
            seen == wanted,
            f"{name} is {seen:#06x}, and the {register} register of the PCI header says "
            f"{wanted:#06x}",
            expected=f"{name} is what the PCI header says",
        )


def _strings(bench: Bench, data: bytes) -> None:
    for name, first, last in (("SN", 4, 23), ("MN", 24, 63), ("FR", 64, 71)):
        text = data[first : last + 1]
        bench.expect(
            all(0x20 <= byte <= 0x7E for byte in text),
            f"{name} is {text!r}",
            expected=f"{name} is an ASCII string: bytes 20h to 7Eh, padded with spaces",
            ref=f"{CONTROLLER} and 1.4.2",
        )


def _entry_sizes(bench: Bench, data: bytes) -> None:
    for name, at, required in (("SQES", 512, 6), ("CQES", 513, 4)):
        low, high = data[at] & 0xF, data[at] >> 4
        bench.expect(
            low == required and high >= low,
            f"{name} is {data[at]:#04x}: entries of {1 << low} to {1 << high} bytes",
            expected=f"{name} says {1 << required} bytes at least, and no less at most",
        )


def _required(bench: Bench, data: bytes, revision: int) -> None:
    """Fields that have to have a value, or one of few."""
    kind, slots, states = data[111], data[260] >> 1 & 7, data[263]
    bench.expect(
        kind == 1 or (revision < REVISION_1_4 and kind == 0),
        f"CNTRLTYPE is {kind}, with VS {revision:#x}",
        expected="CNTRLTYPE is 1, or not reported by a controller older than 1.4",
    )
    bench.expect(slots, "FRMW says that there are no firmware slots", expected="1 to 7 slots")
    bench.expect(states < 32, f"NPSS is {states}", expected="at most 32 power states (NPSS 31)")
    flush = data[525] >> 1 & 3
    bench.expect(
        flush in (2, 3) or (flush == 0 and revision < REVISION_1_4),
        f"VWC is {data[525]:#04x}, with VS {revision:#x}",
        expected="VWC says whether Flush takes NSID FFFFFFFFh (bits 2:1 are 10b or 11b)",
    )
    if revision < REVISION_1_2:
        return
    for name, at in (("WCTEMP", 266), ("CCTEMP", 268)):
        bench.expect(
            _number(data, at, at + 1),
            f"{name} is 0",
            expected=f"{name} is not 0, in a controller of revision 1.2 or later",
        )


@check(
    "identify.controller",
    ref=CONTROLLER,
    expected="each field has a value that the specification allows, and agrees with the registers",
)
def controller(bench: Bench) -> None:
    """Identify Controller, beside VS and the PCI header."""
    nvme = bench.nvme
    data, revision = nvme.identify_data(Cns.CONTROLLER), nvme["vs"]
    _pci_ids(bench, data)
    _strings(bench, data)
    version = _number(data, 80, 83)
    bench.expect(
        version == revision or (revision < REVISION_1_2 and version == 0),
        f"VER is {version:#x}, and the register VS is {revision:#x}",
        expected="VER is the value of VS",
    )
    _entry_sizes(bench, data)
    _required(bench, data, revision)
    nn, active = _number(data, 516, 519), nvme.active_namespaces()
    bench.expect(
        nn >= max(active, default=1),
        f"NN is {nn}, and namespace {max(active, default=1)} is active",
        expected="NN is the largest valid NSID",
    )
    if revision > REVISION_1_2:  # 1.2.1 or later
        name = data[768:1024]
        bench.expect(
            name.startswith(b"nqn.") and 0 in name and name.index(0) <= 223,
            f"SUBNQN is {name[:40]!r}...",
            expected='SUBNQN begins with "nqn." and ends with a null after at most 223 bytes',
            ref=f"{CONTROLLER} and 4.7",
        )


@check(
    "identify.namespace",
    ref=f"{NAMESPACE} and 2.1.1",
    expected="NSZE >= NCAP >= NUSE, and a format that exists, with blocks of 512 bytes or more",
)
def namespace(bench: Bench) -> None:
    """Identify Namespace of each active namespace."""
    for nsid in bench.nvme.active_namespaces()[:NAMESPACES_MAX]:
        data = bench.nvme.identify_data(Cns.NAMESPACE, nsid=nsid)
        size, capacity, used = (_number(data, at, at + 7) for at in (0, 8, 16))
        whose = f"of namespace {nsid}"
        sizes = f"NSZE {whose} is {size:#x}, NCAP {capacity:#x} and NUSE {used:#x}"
        bench.expect(size >= capacity >= used, sizes)
        thin = data[24] & 1
        bench.expect(
            thin or size == capacity, sizes, expected="without thin provisioning, NCAP is NSZE"
        )
        # NLBAF and NULBAF.
        formats, flbas = data[25] + 1 + data[82], data[26]
        index = flbas & 0xF | (flbas >> 1 & 0x30 if formats > 16 else 0)
        bench.expect(
            formats <= 64 and index < formats,
            f"FLBAS {whose} is {flbas:#x}, which is format {index}, and there are {formats}",
            expected="the format in use is one of those that exist",
        )
        shifts = [data[128 + 4 * number + 2] for number in range(formats)]
        bench.expect(
            all(shift == 0 or 9 <= shift < 64 for shift in shifts),
            f"the formats {whose} have the LBADS {shifts}",
            expected="LBADS is 0 (not available), or 9 or more",
        )
        bench.expect(
            shifts[index],
            f"the format in use {whose}, {index}, has the LBADS 0, which says that it is not "
            "available",
        )


def _nsids(data: bytes) -> list[int]:
    """The list, checked for nothing: up to its last entry that is not 0."""
    words = [_number(data, at, at + 3) for at in range(0, IDENTIFY_SIZE, 4)]
    while words and not words[-1]:
        words.pop()
    return words


@check(
    "identify.active-namespaces",
    ref="Base 2.2, 5.1.13.2.2",
    expected="the NSIDs above that of the command, rising, then zeroes",
)
def active_namespaces(bench: Bench) -> None:
    """The Active Namespace ID list from its beginning, from the middle, and from behind its end."""
    nvme = bench.nvme
    nn = nvme.identify().nn
    active = _nsids(nvme.identify_data(Cns.ACTIVE_NAMESPACES))
    bench.expect(
        active == sorted(set(active)) and 0 not in active and max(active, default=0) <= nn,
        f"the list is {active[:20]}, with NN {nn}",
        expected="different NSIDs from 1 to NN, in rising order, then zeroes",
    )
    if len(active) == IDENTIFY_SIZE // 4:
        bench.skip("there are 1024 active namespaces or more, and which come next is not known")
    edges = {near for nsid in active[:4] + active[-4:] for near in (nsid - 1, nsid, nsid + 1)}
    after = edges | {0, nn, nn + 1, 0xFFFF_FFFD, bench.random.randint(0, nn)}
    for nsid in sorted(number for number in after if number < 0xFFFF_FFFE):
        seen = _nsids(nvme.identify_data(Cns.ACTIVE_NAMESPACES, nsid=nsid))
        wanted = [number for number in active if number > nsid]
        bench.expect(
            seen == wanted,
            f"the list for NSID {nsid:#x} is {seen[:20]}, where the active ones are {active[:20]}",
        )
    for nsid in (0xFFFF_FFFE, BROADCAST_NSID):
        pending, data = ask(bench, Cns.ACTIVE_NAMESPACES, nsid)
        bench.expect(
            pending.status == Status.INVALID_NAMESPACE_OR_FORMAT
            # Earlier revisions did not say which.
            or (nvme["vs"] < REVISION_2_2 and not (pending.ok and any(data))),
            f"the list for NSID {nsid:#x} got the status {pending.status.label}",
            expected="no NSID is larger: Invalid Namespace or Format",
        )
    for nsid in active[:NAMESPACES_MAX]:
        size = nvme.identify_namespace(nsid).nsze
        bench.expect(size, f"namespace {nsid} is in the list and has the size 0")


_LENGTHS = {
    DescriptorType.EUI64: 8,
    DescriptorType.NGUID: 16,
    DescriptorType.UUID: 16,
    DescriptorType.CSI: 1,
}


def _parse(bench: Bench, nsid: int, data: bytes) -> dict[int, bytes]:
    """The descriptors by their type, each looked at by itself."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data) and data[at + 1]:
        kind, length = data[at], data[at + 1]
        what = f"namespace {nsid} has a descriptor of NIDT {kind} and NIDL {length}, at byte {at}"
        bench.expect(
            _LENGTHS.get(DescriptorType(kind), length) == length and kind,
            what,
            expected="each type has its length: 8, 16, 16 and 1 bytes for NIDT 1 to 4",
        )
        end = at + 4 + length
        bench.expect(end <= len(data), f"{what}, of {len(data)} bytes")
        bench.expect(
            kind not in found,
            f"{what}, and another of this NIDT before it",
            expected="one descriptor of each type",
        )
        found[kind] = data[at + 4 : end]
        at = end
    return found


@check(
    "identify.descriptors",
    ref=DESCRIPTORS,
    expected="descriptors of the right lengths, one of each type, that say what the other data "
    "structures say",
)
def descriptors(bench: Bench) -> None:
    """The Namespace Identification Descriptor list of each active namespace."""
    nvme = bench.nvme
    if nvme["vs"] < REVISION_1_3:
        bench.skip(f"VS is {nvme['vs']:#x}: there are descriptors from revision 1.3 on")
    for nsid in nvme.active_namespaces()[:NAMESPACES_MAX]:
        found = _parse(bench, nsid, nvme.identify_data(Cns.NAMESPACE_DESCRIPTORS, nsid=nsid))
        bench.expect(
            found.keys() & {DescriptorType.EUI64, DescriptorType.NGUID, DescriptorType.UUID},
            f"namespace {nsid} has descriptors of the types {sorted(found)}",
            expected="at least one of NIDT 1, 2 or 3 identifies the namespace",
        )
        if nvme.cap.css >> 6 & 1:
            bench.expect(
                DescriptorType.CSI in found,
                f"CAP.CSS is {nvme.cap.css:#x}, and namespace {nsid} has descriptors of the types "
                f"{sorted(found)}",
                expected="a descriptor of NIDT 4, because CAP.CSS.IOCSS is 1",
            )
        space = nvme.identify_namespace(nsid)
        for kind, name, value in (
            (DescriptorType.EUI64, "EUI64", space.eui64),
            (DescriptorType.NGUID, "NGUID", space.nguid),
        ):
            if kind in found:
                bench.expect(
                    found[kind] == value and any(value),
                    f"namespace {nsid} has the {name} {found[kind].hex()} in its descriptor, and "
                    f"{value.hex()} in Identify Namespace",
                    expected="the same value, and none if it is 0",
                )


def _bad(bench: Bench, cns: int, nsid: int, wanted: Status, why: str, ref: str) -> None:
    pending, _ = ask(bench, cns, nsid)
    bench.expect(
        pending.status == wanted,
        f"Identify with CNS {cns:#04x} and NSID {nsid:#x}, which is {why}, got the status "
        f"{pending.status.label}",
        expected=wanted.label,
        ref=ref,
    )


@check(
    "identify.bad-namespace",
    ref=f"{NSIDS}; {NAMESPACE}; {DESCRIPTORS}",
    expected="an NSID that is 0 or above NN is refused; Identify Namespace of one that is not "
    "active is all zeroes",
)
def bad_namespace(bench: Bench) -> None:
    """Identify of namespaces that do not exist, are not active, and of all of them."""
    nvme = bench.nvme
    identity, active = nvme.identify(), nvme.active_namespaces()
    if nvme["vs"] < REVISION_1_3:
        bench.skip(f"VS is {nvme['vs']:#x}: the statuses are said from revision 1.3 on")
    nn, wrong = identity.nn, Status.INVALID_NAMESPACE_OR_FORMAT
    above = {nsid: f"above NN {nn}" for nsid in (nn + 1, 0xFFFF_FFFE) if nn < nsid < BROADCAST_NSID}
    invalid = {0: "0"} | above
    for nsid, why in invalid.items():
        _bad(bench, Cns.NAMESPACE, nsid, wrong, why, NSIDS)
        _bad(bench, Cns.NAMESPACE_DESCRIPTORS, nsid, wrong, why, NSIDS)
    why = "the broadcast value"
    _bad(bench, Cns.NAMESPACE_DESCRIPTORS, BROADCAST_NSID, wrong, why, DESCRIPTORS)
    inactive = [nsid for nsid in range(1, min(nn, 1024) + 1) if nsid not in active]
    for nsid in bench.random.sample(inactive, min(3, len(inactive))):
        data = nvme.identify_data(Cns.NAMESPACE, nsid=nsid)
        bench.expect(
            not any(data),
            f"NSID {nsid} is not active, and its Identify Namespace has a {_first(data)}",
            expected="all zeroes",
            ref=NAMESPACE,
        )
        why, field = "not active", Status.INVALID_FIELD_IN_COMMAND
        _bad(bench, Cns.NAMESPACE_DESCRIPTORS, nsid, field, why, NSIDS)
    _broadcast(bench, bool(identity.oacs & OACS_NAMESPACE_MANAGEMENT))


def _first(data: bytes) -> str:
    """The first byte that is not 0, in words."""
    at = next((number for number, byte in enumerate(data) if byte), 0)
    return f"{data[at]:#04x} at byte {at}"


def _broadcast(bench: Bench, must: bool) -> None:
    """What all namespaces have in common: for those who manage namespaces."""
    pending, data = ask(bench, Cns.NAMESPACE, BROADCAST_NSID)
    if pending.ok:
        bench.expect(
            not any(data[:24]),
            f"Identify Namespace with NSID FFFFFFFFh has a {_first(data)}",
            expected="NSZE, NCAP and NUSE are 0, because they are not common to all namespaces",
            ref=NAMESPACE,
        )
        return
    bench.expect(
        not must and pending.status == Status.INVALID_NAMESPACE_OR_FORMAT,
        f"OACS says that namespaces can{'' if must else 'not'} be managed, and Identify Namespace "
        f"with NSID FFFFFFFFh got the status {pending.status.label}",
        expected="the capabilities that all namespaces share, if there is namespace management; "
        "else these, or Invalid Namespace or Format",
        ref=NAMESPACE,
    )


@check(
    "identify.reserved-structure",
    ref="Base 2.2, 5.1.13.1",
    expected="Identify with a CNS that is reserved is refused with Invalid Field in Command",
)
def reserved_structure(bench: Bench) -> None:
    """Identify with values of CNS that no revision defines."""
    if bench.nvme["vs"] < REVISION_1_2:
        bench.skip(f"VS is {bench.nvme['vs']:#x}: reserved values are refused from 1.2 on")
    for cns in RESERVED_CNS:
        for nsid in (0, 1):
            pending, _ = ask(bench, cns, nsid)
            bench.expect(
                pending.status == Status.INVALID_FIELD_IN_COMMAND,
                f"Identify with CNS {cns:#04x} and NSID {nsid} got the status "
                f"{pending.status.label}",
            )


@check(
    "identify.pointers",
    ref="Base 2.2, 4.3.1 (PRP2)",
    expected="4096 bytes from PRP1 to the end of its page, then from PRP2, and nothing beside them",
)
def pointers(bench: Bench) -> None:
    """Data structures in two pages that do not follow each other, from any offset."""
    nvme = bench.nvme
    offsets = [0, 4, 512, PAGE // 2, PAGE - 4, 4 * bench.random.randrange(1, PAGE // 4)]
    for cns, nsid in (
        (Cns.CONTROLLER, 0),
        (Cns.NAMESPACE, 1),
        (Cns.ACTIVE_NAMESPACES, 0),
        *([(Cns.NAMESPACE_DESCRIPTORS, 1)] if nvme["vs"] >= REVISION_1_3 else []),
    ):
        for offset in offsets:
            _scattered(bench, cns, nsid, offset)


def _scattered(bench: Bench, cns: int, nsid: int, offset: int) -> None:
    def command(prp1: int, prp2: int) -> Command:
        return Identify(cns=cns, nsid=nsid, prp1=prp1, prp2=prp2)

    wanted = bench.nvme.identify_data(cns, nsid=nsid)
    seen = read_scattered(bench, command, IDENTIFY_SIZE, offset, f"CNS {cns:#04x}")
    at = next((at for at in range(len(wanted)) if seen[at] != wanted[at]), None)
    if at is None:
        return
    where = "in the page of PRP2" if at + offset >= PAGE else "in the page of PRP1"
    bench.expect(
        False,
        f"CNS {cns:#04x} with PRP1 {offset:#x} bytes into a page: byte {at:#x} of the data "
        f"({where}) is {seen[at]:#04x}, and {wanted[at]:#04x} in one whole page",
    )


_FILL = 0xEE


def read_scattered(
    bench: Bench, command: Callable[[int, int], Command], length: int, offset: int, what: str
) -> bytes:
    """The `length` bytes, at most a page, that the admin command of PRP1 and PRP2 returns: it gets
    memory that begins `offset` bytes into a page and goes on in a page before it. Nothing beside
    them may be written."""
    nvme, memory = bench.nvme, bench.link.memory
    base = nvme.pool.pages(5)
    memory.write(base, bytes([_FILL]) * (5 * PAGE))
    # From page 3 into page 1; what goes on behind PRP1 is in page 4.
    first = min(length, PAGE - offset)
    pieces = [(3 * PAGE + offset, first)] + [(PAGE, length - first)] * (first < length)
    prp2 = base + PAGE if first < length else 0
    nvme.run(command(base + 3 * PAGE + offset, prp2))
    seen = memory.read(base, 5 * PAGE)
    nvme.pool.give_back(base, 5)
    beside = bytearray(seen)
    for at, size in pieces:
        beside[at : at + size] = bytes([_FILL]) * size
    touched = [at for at in range(5 * PAGE) if beside[at] != _FILL]
    if touched:
        at = touched[0]
        page = {1: "the page of PRP2", 3: "the page of PRP1"}.get(at // PAGE, "a page beside them")
        bench.expect(
            False,
            f"{what}, {length} bytes with PRP1 {offset:#x} bytes into a page: {len(touched)} bytes "
            f"that are not the data's were written, the first at {at % PAGE:#x} of {page}",
        )
    return b"".join(seen[at : at + size] for at, size in pieces)
