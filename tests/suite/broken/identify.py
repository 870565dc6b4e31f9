"""Faults of Identify."""

from __future__ import annotations

import struct

from nvmelab.device.controller import Controller
from nvmelab.device.queues import Request, SubmissionQueue
from nvmelab.device.transfer import from_host, to_host
from nvmelab.spec.admin import Identify
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.identify import IDENTIFY_SIZE, Cns
from nvmelab.spec.status import Status


class Edited(Controller):
    """What Identify returns goes through `edit`."""

    def edit(self, command: Identify, data: bytearray) -> None:
        """Change the data structure, in place."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        super()._execute(sq)
        if sq.id or request.opcode != AdminOpcode.IDENTIFY or request.status:
            return
        command = Identify.from_words(request.words)
        data = bytearray(from_host(self, command, IDENTIFY_SIZE))
        self.edit(command, data)
        to_host(self, command, bytes(data))


class Answers(Controller):
    """The status of Identify goes through `answer`."""

    def answer(self, command: Identify, status: int) -> int:
        """The status to give instead."""
        return status

    def finish(self, request: Request, status: int = 0) -> None:
        if not request.sq.id and request.opcode == AdminOpcode.IDENTIFY:
            status = self.answer(Identify.from_words(request.words), status)
        super().finish(request, status)


class PadsWithZeroes(Edited):
    """Strings end with zeroes instead of spaces."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[4:64] = data[4:64].replace(b" ", b"\0")


class OtherVendor(Edited):
    """The subsystem vendor is not that of the PCI header."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[2] ^= 0xFF


class OtherVersion(Edited):
    """VER is not what the register says."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[80:84] = (0x0001_0300).to_bytes(4, "little")


class SmallEntries(Edited):
    """The largest entry of a completion queue is smaller than the smallest."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[513] = 0x34


class NoType(Edited):
    """CNTRLTYPE is left out."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[111] = 0


class CountsNamespaces(Edited):
    """NN is the number of namespaces but one."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[516:520] = (len(self.namespaces) - 1).to_bytes(4, "little")


class UsesMoreThanItHas(Edited):
    """NUSE is above NCAP."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.NAMESPACE:
            data[23] += 1


class OtherFormat(Edited):
    """FLBAS names a format behind the last."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.NAMESPACE:
            data[26] = 1


class TinyBlocks(Edited):
    """LBADS says 256 bytes."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.NAMESPACE:
            data[130] = 8


class ListFromNsid(Edited):
    """The list begins with the NSID of the command, not behind it."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.ACTIVE_NAMESPACES and command.nsid in self.namespaces:
            data[:] = struct.pack("<I", command.nsid) + data[:-4]


class ListFalls(Edited):
    """The list is in falling order."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.ACTIVE_NAMESPACES:
            nsids = [nsid for (nsid,) in struct.iter_unpack("<I", data) if nsid]
            struct.pack_into(f"<{len(nsids)}I", data, 0, *nsids[::-1])


class ListsWhatIsNot(Edited):
    """The list has an entry that is no namespace."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.ACTIVE_NAMESPACES and command.nsid == 0:
            struct.pack_into("<I", data, 4 * len(self.namespaces), max(self.namespaces) + 1)


class OneDescriptorTwice(Edited):
    """A descriptor is repeated."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.NAMESPACE_DESCRIPTORS:
            data[20:40] = data[:20]


class ShortUuid(Edited):
    """The UUID has 8 bytes."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.NAMESPACE_DESCRIPTORS:
            data[1] = 8
            del data[12:20]
            data += bytes(8)


class NobodysDescriptor(Edited):
    """No descriptor identifies the namespace."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.NAMESPACE_DESCRIPTORS:
            data[:] = data[20:] + bytes(20)


class TakesAnyNamespace(Answers):
    """An NSID above NN is refused with the status of one that is not active."""

    def answer(self, command: Identify, status: int) -> int:
        if command.nsid > max(self.namespaces) and status & 0x7FF:
            return Status.INVALID_FIELD_IN_COMMAND
        return status


class InactiveIsTheFirst(Edited):
    """There are inactive NSIDs, and they look like namespace 1."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[516:520] = (max(self.namespaces) + 2).to_bytes(4, "little")

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        last = max(self.namespaces)
        if request.opcode == AdminOpcode.IDENTIFY and last < request.nsid <= last + 2:
            request.words = (request.words[0], 1, *request.words[2:])
        super()._execute(sq)


class RefusesBroadcast(Edited):
    """Says that it manages namespaces, and does not say what they have in common."""

    def edit(self, command: Identify, data: bytearray) -> None:
        if command.cns == Cns.CONTROLLER:
            data[256] |= 1 << 3


class AnswersReserved(Answers):
    """A reserved CNS is taken for the one of its lower two bits (as in revision 1.1)."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if request.opcode == AdminOpcode.IDENTIFY and not sq.id:
            words = list(request.words)
            words[10] &= 3
            request.words = tuple(words)
        super()._execute(sq)


class ForgetsPrp2(Controller):
    """Data goes on behind PRP1, wherever PRP2 points (bhyve and Propolis)."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if request.opcode == AdminOpcode.IDENTIFY and not sq.id:
            words = list(request.words)
            prp1 = words[6] | words[7] << 32
            behind = (prp1 // 4096 + 1) * 4096
            words[8], words[9] = behind & 0xFFFF_FFFF, behind >> 32
            request.words = tuple(words)
        super()._execute(sq)


BROKEN: dict[str, list[type[Controller]]] = {
    "identify.controller": [
        PadsWithZeroes,
        OtherVendor,
        OtherVersion,
        SmallEntries,
        NoType,
        CountsNamespaces,
    ],
    "identify.namespace": [UsesMoreThanItHas, OtherFormat, TinyBlocks],
    "identify.active-namespaces": [ListFromNsid, ListFalls, ListsWhatIsNot],
    "identify.descriptors": [OneDescriptorTwice, ShortUuid, NobodysDescriptor],
    "identify.bad-namespace": [TakesAnyNamespace, InactiveIsTheFirst, RefusesBroadcast],
    "identify.reserved-structure": [AnswersReserved],
    "identify.pointers": [ForgetsPrp2],
}
