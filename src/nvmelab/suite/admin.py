"""Checks of features, log pages and admin opcodes."""

from __future__ import annotations

from functools import partial

from nvmelab.host.buffers import PAGE
from nvmelab.host.queues import Pending
from nvmelab.spec.admin import GetFeatures, GetLogPage, Identify, SetFeatures
from nvmelab.spec.commands import BROADCAST_NSID, AdminOpcode, NvmOpcode
from nvmelab.spec.features import Feature, Select
from nvmelab.spec.identify import ONCS_SELECT, Cns, IdentifyController
from nvmelab.spec.logpages import ERROR_ENTRY_SIZE, LogPage
from nvmelab.spec.registers import REVISION_1_4, REVISION_2_0
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.identify import read_scattered

EFFECTS_SUPPORTED, OFFSET_SUPPORTED = 1 << 1, 1 << 2
"""Bits of Identify Controller's LPA."""
SAVEABLE, CHANGEABLE = 1, 1 << 2
"""Bits of a feature's supported capabilities."""
FEATURE_IDENTIFIERS_SUPPORTED = 0x12
UNDER = 1 << 20
"""THSEL of the lower temperature threshold."""
RESERVED_FEATURES = (0x00, 0x2F, 0x60, 0x90, 0xBF)
RESERVED_LOG_PAGES = (0x2F, 0x40, 0x5A, 0x6F, 0x7C)
RESERVED_OPCODES = (0x03, 0x07, 0x0B, 0x0F, 0x13, 0x4B, 0x63, 0x7B, 0x9D, 0xBB)
ALL_QUEUES = 0xFFFE_FFFE
"""65,535 of each, 0's based: as many as may be asked for."""
VALUES = "Base 2.2, 4.4"
LOG_PAGE = "Base 2.2, 5.1.12"

_MANDATORY = (
    (Feature.ARBITRATION, 0),
    (Feature.POWER_MANAGEMENT, 0),
    (Feature.TEMPERATURE_THRESHOLD, 0),
    (Feature.ERROR_RECOVERY, 1),
    (Feature.NUMBER_OF_QUEUES, 0),
    (Feature.INTERRUPT_COALESCING, 0),
    (Feature.INTERRUPT_VECTOR_CONFIGURATION, 0),
    (Feature.WRITE_ATOMICITY_NORMAL, 0),
    (Feature.ASYNC_EVENT_CONFIGURATION, 0),
)
"""Features of every I/O controller on PCIe, and the NSID to ask with."""


def _get(bench: Bench, fid: int, sel: int = 0, nsid: int = 0, cdw11: int = 0) -> Pending:
    return bench.nvme.admin.submit(GetFeatures(fid=fid, sel=sel, nsid=nsid, cdw11=cdw11)).wait()


def _set(bench: Bench, fid: int, value: int, *, sv: int = 0) -> Pending:
    return bench.nvme.admin.submit(SetFeatures(fid=fid, value=value, sv=sv)).wait()


def _value(bench: Bench, fid: int, sel: int = 0, nsid: int = 0, cdw11: int = 0) -> int:
    """Dword 0 of a Get Features that has to succeed."""
    pending = _get(bench, fid, sel, nsid, cdw11)
    bench.expect(
        pending.ok,
        f"Get Features of {Feature(fid).label} ({fid:#04x}) with SEL {sel} got the status "
        f"{pending.status.label}",
    )
    return pending.check().dw0


@check(
    "admin.features",
    ref="Base 2.2, 3.1.3.6, and NVM Command Set 1.2, 2.2; 4.4 for SEL",
    expected="the mandatory features can be read: their current values, and where SEL is "
    "supported, their default and saved values and their capabilities",
)
def features(bench: Bench) -> None:
    """Get Features of every mandatory feature, with each value of SEL."""
    nvme = bench.nvme
    oncs, states = nvme.identify().oncs, nvme.identify().npss
    nvme.create_cq(entries=2, vector=0)  # a vector has a configuration while a CQ uses it
    for fid, nsid in _MANDATORY:
        value = _value(bench, fid, Select.CURRENT, nsid)
        if fid == Feature.POWER_MANAGEMENT:
            bench.expect(value & 0x1F < states, f"power state {value & 0x1F}, of {states}")
        if fid == Feature.INTERRUPT_VECTOR_CONFIGURATION:
            bench.expect(value & 0xFFFF == 0, f"asked for vector 0, told of {value & 0xFFFF}")
        if not oncs & ONCS_SELECT:
            continue
        can = _value(bench, fid, Select.SUPPORTED_CAPABILITIES, nsid)
        default = _value(bench, fid, Select.DEFAULT, nsid)
        saved = _value(bench, fid, Select.SAVED, nsid)
        bench.expect(
            can & SAVEABLE or saved == default,
            f"the saved value of {fid.label}, which is not saveable, is {saved:#x}, and its "
            f"default {default:#x}",
            expected="the default value, where none is saved",
            ref=VALUES,
        )


def _keeps(bench: Bench, fid: int, selector: int, values: list[int], mask: int) -> None:
    """Each value is what is read after it was set, and the default stays."""
    select = bool(bench.nvme.identify().oncs & ONCS_SELECT)
    default = _value(bench, fid, Select.DEFAULT, 0, selector) if select else 0
    name = f"{Feature(fid).label} ({fid:#04x}, CDW11 {selector:#x})"
    for value in values:
        pending = _set(bench, fid, selector | value)
        if pending.status == Status.FEATURE_NOT_CHANGEABLE:
            return
        bench.expect(pending.ok, f"Set Features of {name} to {value:#x} got {pending.status.label}")
        seen = _value(bench, fid, Select.CURRENT, 0, selector) & mask
        bench.expect(
            seen == value, f"{name} was set to {value:#x}, and Get Features says {seen:#x}"
        )
        seen = _value(bench, fid, Select.DEFAULT, 0, selector) if select else 0
        bench.expect(
            seen == default,
            f"the default of {name} was {default:#x}, and is {seen:#x} after {value:#x} was set",
            expected="the default does not change",
        )
    if not select:
        return
    can = _value(bench, fid, Select.SUPPORTED_CAPABILITIES, 0, selector)
    bench.expect(
        can & CHANGEABLE,
        f"{name} was changed, and its capabilities are {can:#x}: not changeable",
        ref="Base 2.2, 5.1.11.2",
    )
    if can & SAVEABLE:
        return
    pending = _set(bench, fid, selector | values[0], sv=1)
    bench.expect(
        pending.status == Status.FEATURE_IDENTIFIER_NOT_SAVEABLE,
        f"{name} is not saveable, and Set Features with SV 1 got {pending.status.label}",
        expected="Feature Identifier Not Saveable",
        ref="Base 2.2, 5.1.25 (SV)",
    )


@check(
    "admin.feature-values",
    ref=VALUES,
    expected="a value that was set is the current one until it is set again, and changes no other",
)
def feature_values(bench: Bench) -> None:
    """Temperature thresholds, the configuration of events, and the write cache, changed."""
    identity = bench.nvme.identify()
    kelvin = bench.random.sample(range(280, 400), 4)
    fid = Feature.TEMPERATURE_THRESHOLD
    _keeps(bench, fid, 0, kelvin[:2], 0xFFFF)
    over = _value(bench, fid) & 0xFFFF
    if identity.wctemp:
        _keeps(bench, fid, UNDER, kelvin[2:], 0xFFFF)
        seen = _value(bench, fid) & 0xFFFF
        bench.expect(
            seen == over,
            f"the upper temperature threshold was {over}, and is {seen} after the lower one was "
            "set",
            ref="Base 2.2, 5.1.25.1.3",
        )
    events = bench.random.sample(range(0x20), 3)
    _keeps(bench, Feature.ASYNC_EVENT_CONFIGURATION, 0, [*events, 0], 0xFF)
    _write_cache(bench, identity)
    seen = _value(bench, fid) & 0xFFFF
    bench.expect(
        seen == over,
        f"the upper temperature threshold was {over}, and is {seen} after other features were set",
    )


def _write_cache(bench: Bench, identity: IdentifyController) -> None:
    fid = Feature.VOLATILE_WRITE_CACHE
    if identity.vwc & 1:
        _keeps(bench, fid, 0, [0, 1, 0, 1], 1)
        return
    if bench.nvme["vs"] < REVISION_1_4:
        return
    for pending in (_get(bench, fid), _set(bench, fid, 1)):
        bench.expect(
            pending.status == Status.INVALID_FIELD_IN_COMMAND,
            f"there is no volatile write cache, and {type(pending.command).__name__} of it got "
            f"{pending.status.label}",
            expected="Invalid Field in Command",
            ref="Base 2.2, 5.1.25.1.4",
        )


@check(
    "admin.reserved-features",
    ref=VALUES,
    expected="Get and Set Features of an identifier that is reserved are refused with Invalid "
    "Field in Command",
)
def reserved_features(bench: Bench) -> None:
    """Get and Set Features of identifiers that no revision defines."""
    for fid in RESERVED_FEATURES:
        for pending in (_get(bench, fid), _set(bench, fid, 0)):
            bench.expect(
                pending.status == Status.INVALID_FIELD_IN_COMMAND,
                f"{type(pending.command).__name__} of {fid:#04x} got {pending.status.label}",
            )


@check(
    "admin.number-of-queues",
    ref="Base 2.2, 5.1.25.2.1",
    expected="any number may be asked for; what was given stays until the next reset, and is not "
    "asked for again once there is a queue",
)
def number_of_queues(bench: Bench) -> None:
    """Number of Queues: more than exist, again with another number, and with queues created."""
    nvme, fid = bench.nvme, Feature.NUMBER_OF_QUEUES
    nvme.enable()
    first = _set(bench, fid, ALL_QUEUES)
    bench.expect(first.ok, f"65,535 queues were asked for, and the answer is {first.status.label}")
    given = first.check().dw0

    def same(seen: int, when: str) -> None:
        bench.expect(seen == given, f"first {given:#010x} was given, and {when} {seen:#010x}")

    same(_value(bench, fid), "Get Features says")
    again = _set(bench, fid, 0)
    bench.expect(again.ok, f"Set Features before any queue exists got {again.status.label}")
    same(again.check().dw0, "when asked for one of each")
    cq = nvme.create_cq(entries=2)
    for what in ("a completion queue", "a queue pair"):
        pending = _set(bench, fid, ALL_QUEUES)
        bench.expect(
            pending.status == Status.COMMAND_SEQUENCE_ERROR,
            f"Set Features after the creation of {what} got {pending.status.label}",
            expected="Command Sequence Error",
        )
        same(_value(bench, fid), "after a refused Set Features")
        if what == "a completion queue":
            nvme.create_sq(entries=2, cq=cq)


def _log_pages(bench: Bench) -> dict[int, int]:
    """The mandatory log pages, and their sizes in bytes, one page of memory at most."""
    identity, revision = bench.nvme.identify(), bench.nvme["vs"]
    sizes = {
        int(LogPage.ERROR_INFORMATION): min(identity.elpe * ERROR_ENTRY_SIZE, PAGE),
        int(LogPage.SMART): 512,
        int(LogPage.FIRMWARE_SLOT): 512,
    }
    if identity.lpa & EFFECTS_SUPPORTED or revision >= REVISION_2_0:
        sizes[int(LogPage.COMMANDS_AND_EFFECTS)] = PAGE
    if revision >= REVISION_2_0:
        sizes[int(LogPage.SUPPORTED_LOG_PAGES)] = 1024
        sizes[FEATURE_IDENTIFIERS_SUPPORTED] = 1024
    return sizes


@check(
    "admin.log-pages",
    ref="Base 2.2, 3.1.3.5",
    expected="the mandatory log pages can be read, and agree with what the device says elsewhere",
)
def log_pages(bench: Bench) -> None:
    """Every mandatory log page; the firmware revision, and which commands are supported."""
    nvme = bench.nvme
    pages: dict[int, bytes] = {}
    for lid, size in _log_pages(bench).items():
        buffer = nvme.buffer(size)
        command = GetLogPage(lid=lid, numd=size // 4, nsid=BROADCAST_NSID, prp1=buffer.addr)
        pending = nvme.admin.submit(command, buffer=buffer).wait()
        bench.expect(
            pending.ok, f"log page {lid:#04x}, {size} bytes, got the status {pending.status.label}"
        )
        pages[lid] = buffer.read()
    slots, revision = pages[LogPage.FIRMWARE_SLOT], nvme.identify_data(Cns.CONTROLLER)[64:72]
    slot = slots[0] & 7
    bench.expect(
        slot and slots[8 * slot : 8 * slot + 8] == revision,
        f"the active firmware slot is {slot}, with the revision {slots[8 * slot :][:8]!r}, and FR "
        f"of Identify Controller is {revision!r}",
        expected="a slot from 1 to 7, with the revision that Identify Controller says",
        ref="Base 2.2, 5.1.12.1.4 and 5.1.13.2.1 (FR)",
    )
    effects = pages.get(LogPage.COMMANDS_AND_EFFECTS)
    if effects is None:
        return
    admin = [opcode for opcode in AdminOpcode if opcode != AdminOpcode.DOORBELL_BUFFER_CONFIG]
    commands = [(f"the admin command {opcode.label}", 4 * opcode) for opcode in admin]
    commands += [
        (f"the I/O command {opcode.label}", 1024 + 4 * opcode)
        for opcode in (NvmOpcode.FLUSH, NvmOpcode.WRITE, NvmOpcode.READ)
    ]
    for what, at in commands:
        bench.expect(
            effects[at] & 1,
            f"{what} is not supported, as the Commands Supported and Effects log page has it",
            expected="every mandatory command is supported",
            ref="Base 2.2, 5.1.12.1.6 and 3.1.3.4",
        )


@check(
    "admin.log-pieces",
    ref=f"{LOG_PAGE} (NUMDL, LPOL, LPOU)",
    expected="a part of a log page is what the whole has there, and nothing is written but it",
)
def log_pieces(bench: Bench) -> None:
    """Parts of log pages: from the beginning and from any offset, into any place in memory."""
    nvme = bench.nvme
    offsets = bool(nvme.identify().lpa & OFFSET_SUPPORTED)
    for lid, size in _log_pages(bench).items():
        whole = nvme.log_page(lid, size)
        for number in range(12):
            at = 4 * bench.random.randrange(size // 4) if offsets and number % 2 else 0
            dwords = bench.random.randint(1, (size - at) // 4)
            place = bench.random.choice([0, 4 * bench.random.randrange(1024), PAGE - 4])
            what = f"log page {lid:#04x}, {dwords} dwords from byte {at:#x}"
            command = partial(_part, lid, dwords, at)
            seen = read_scattered(bench, command, 4 * dwords, place, what)
            wanted = whole[at : at + 4 * dwords]
            # The SMART log counts what happens meanwhile.
            bench.expect(
                seen == wanted or lid == LogPage.SMART,
                f"{what}, with PRP1 {place:#x} bytes into a page: the data begins with "
                f"{seen[:8].hex()}..., and the whole page has {wanted[:8].hex()}... there",
            )
        for at in (size + 4, 1 << 32) if offsets and lid != LogPage.ERROR_INFORMATION else ():
            pending = nvme.admin.submit(_part(lid, 1, at, nvme.buffer(4).addr, 0)).wait()
            bench.expect(
                pending.status == Status.INVALID_FIELD_IN_COMMAND,
                f"log page {lid:#04x} from byte {at:#x}, of {size}, got {pending.status.label}",
                expected="Invalid Field in Command for an offset behind the end",
            )


def _part(lid: int, dwords: int, at: int, prp1: int, prp2: int) -> GetLogPage:
    return GetLogPage(lid=lid, numd=dwords, lpo=at, nsid=BROADCAST_NSID, prp1=prp1, prp2=prp2)


@check(
    "admin.reserved-log-pages",
    ref=f"{LOG_PAGE} (Invalid Log Page)",
    expected="a log page that is reserved is refused with Invalid Log Page (until revision 2.0, or "
    "with Invalid Field in Command)",
)
def reserved_log_pages(bench: Bench) -> None:
    """Get Log Page of identifiers that no revision defines."""
    allowed = {Status.INVALID_LOG_PAGE}
    if bench.nvme["vs"] < REVISION_2_0 + 0x100:
        allowed.add(Status.INVALID_FIELD_IN_COMMAND)
    buffer = bench.nvme.buffer(512)
    for lid in RESERVED_LOG_PAGES:
        command = GetLogPage(lid=lid, numd=128, nsid=BROADCAST_NSID, prp1=buffer.addr)
        pending = bench.nvme.admin.submit(command, buffer=buffer).wait()
        bench.expect(pending.status in allowed, f"log page {lid:#04x} got {pending.status.label}")


@check(
    "admin.opcode",
    ref="Base 2.2, 4.2.3.1 (Invalid Command Opcode)",
    expected="a reserved opcode is refused with Invalid Command Opcode, and the queue goes on",
)
def opcode(bench: Bench) -> None:
    """Reserved opcodes on the admin queue, between good commands."""
    nvme = bench.nvme
    buffer = nvme.buffer(PAGE)
    for number in RESERVED_OPCODES:
        data = bytearray(Identify(cns=Cns.CONTROLLER, prp1=buffer.addr).encode())
        data[0] = number
        pending = nvme.admin.submit(bytes(data), buffer=buffer)
        good = nvme.admin.submit(Identify(cns=Cns.CONTROLLER, prp1=buffer.addr), buffer=buffer)
        pending.wait()
        bench.expect(
            pending.status == Status.INVALID_COMMAND_OPCODE,
            f"admin opcode {number:#04x}, which is reserved, got the status {pending.status.label}",
        )
        good.check()
