"""The least of an NVMe driver: enable, identify, queue pairs, commands, shutdown.

NVMe Base 2.2, 3.5.1 (initialization) and 3.6.1 (shutdown). It polls; it has no clock, so a wait
ends when the link says that the device has nothing left to do.
"""

from __future__ import annotations

import msgspec

from nvmelab.host.queues import DeviceError, Qpair
from nvmelab.link.base import HostLink
from nvmelab.spec.admin import CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq, Identify, SetFeatures
from nvmelab.spec.commands import Command, Completion
from nvmelab.spec.features import Feature
from nvmelab.spec.identify import IDENTIFY_SIZE, Cns, IdentifyController, IdentifyNamespace
from nvmelab.spec.registers import IOCQES, IOSQES, OFFSET, Aqa, Cap, Cc, Csts
from nvmelab.spec.status import Status

_PAGE = 4096


class CommandFailed(DeviceError):
    """A command completed with a status that is not success."""

    def __init__(self, command: Command, completion: Completion) -> None:
        super().__init__(f"{command}: {Status(completion.status & 0x7FF).label}")
        self.status = Status(completion.status & 0x7FF)


class Driver:
    """A controller behind `link`. Raises DeviceError whenever the device does not play along."""

    def __init__(self, link: HostLink) -> None:
        self.link = link
        self.cap = Cap.decode(link.read64(OFFSET["cap"]).to_bytes(8, "little"))
        self._admin: Qpair | None = None
        self._page = link.allocate(_PAGE)

    def _csts(self) -> Csts:
        return Csts.from_words((self.link.read32(OFFSET["csts"]),))

    def _wait(self, what: str, **wanted: int) -> None:
        """Until fields of CSTS have these values."""
        while True:
            csts = self._csts()
            if csts.cfs:
                raise DeviceError(f"CSTS.CFS is set while waiting for {what}")
            if all(getattr(csts, name) == value for name, value in wanted.items()):
                return
            if not self.link.progress() and csts == self._csts():
                raise DeviceError(f"the device has nothing left to do, but not: {what}; {csts}")

    def _write_cc(self, cc: Cc) -> None:
        self.link.write32(OFFSET["cc"], int.from_bytes(cc.encode(), "little"))

    def enable(self, *, admin_entries: int = 32) -> None:
        """Reset the controller and enable it with an admin queue pair of that many entries."""
        self._write_cc(Cc())
        self._wait("CSTS.RDY 0", rdy=0)
        self._admin = Qpair(self.link, 0, admin_entries, admin_entries)
        aqa = Aqa(asqs=admin_entries, acqs=admin_entries)
        self.link.write32(OFFSET["aqa"], int.from_bytes(aqa.encode(), "little"))
        self.link.write64(OFFSET["asq"], self._admin.sq_base)
        self.link.write64(OFFSET["acq"], self._admin.cq_base)
        self._write_cc(Cc(en=1, iosqes=IOSQES, iocqes=IOCQES))
        self._wait("CSTS.RDY 1", rdy=1)

    def wait(self, qpair: Qpair) -> list[Completion]:
        """At least one completion of `qpair`."""
        while not (found := qpair.reap()):
            if not self.link.progress() and not (found := qpair.reap()):
                raise DeviceError(f"the device has nothing left to do; {qpair.state()}")
            if found:
                break
        return found

    def run(self, qpair: Qpair, command: Command) -> Completion:
        """Submit one command to an otherwise idle queue pair and wait for it. Raises
        CommandFailed."""
        qpair.submit(command)
        (completion,) = self.wait(qpair)
        if completion.status:
            raise CommandFailed(command, completion)
        return completion

    def admin(self, command: Command) -> Completion:
        """Run one admin command. Raises CommandFailed."""
        assert self._admin, "enable the controller first"
        return self.run(self._admin, command)

    def identify_controller(self) -> IdentifyController:
        self.admin(Identify(cns=Cns.CONTROLLER, prp1=self._page))
        return IdentifyController.decode(self.link.memory.read(self._page, IDENTIFY_SIZE))

    def identify_namespace(self, nsid: int) -> IdentifyNamespace:
        self.admin(Identify(cns=Cns.NAMESPACE, nsid=nsid, prp1=self._page))
        return IdentifyNamespace.decode(self.link.memory.read(self._page, IDENTIFY_SIZE))

    def set_number_of_queues(self, pairs: int) -> int:
        """Ask for that many I/O queue pairs; returns how many there may be."""
        value = pairs - 1 << 16 | pairs - 1
        dw0 = self.admin(SetFeatures(fid=Feature.NUMBER_OF_QUEUES, value=value)).dw0
        return min(dw0 & 0xFFFF, dw0 >> 16) + 1

    def create_qpair(self, qid: int, *, entries: int, cq_entries: int | None = None) -> Qpair:
        """Create an I/O queue pair; its completion queue has as many entries unless told
        otherwise, and raises vector `qid`."""
        qpair = Qpair(self.link, qid, entries, cq_entries or entries)
        self.admin(
            CreateIoCq(qid=qid, qsize=qpair.cq_entries, prp1=qpair.cq_base, pc=1, ien=1, iv=qid)
        )
        self.admin(CreateIoSq(qid=qid, qsize=entries, prp1=qpair.sq_base, pc=1, cqid=qid))
        return qpair

    def delete_qpair(self, qpair: Qpair) -> None:
        self.admin(DeleteIoSq(qid=qpair.qid))
        self.admin(DeleteIoCq(qid=qpair.qid))

    def shutdown(self) -> None:
        """Normal shutdown: the controller makes everything durable."""
        cc = Cc.from_words((self.link.read32(OFFSET["cc"]),))
        self._write_cc(msgspec.structs.replace(cc, shn=1))
        self._wait("CSTS.SHST 2", shst=2)
