"""An NVMe driver for people who test devices: the controller as its driver sees it.

    controller = Controller(link)
    controller.start()
    qpair = controller.create_qpair(entries=4, flow="sqhd")
    qpair.write(nsid=1, slba=0, nlb=8, data=b"x" * 4096).check()
    data = qpair.read(nsid=1, slba=0, nlb=8).data()

NVMe Base 2.2, 3.5.1 (initialization), 3.6.1 (shutdown), 3.7.2 (reset). It has no clock: every wait
ends when the link says that the device is at rest. It enables the controller with 4 KiB pages and
entries of the usual sizes, and breaks no rule unless it is told to: raw registers, raw submission
queue entries of any bits and any doorbell value are there for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nvmelab.host.buffers import Buffer, Pool
from nvmelab.host.cids import CidPolicy
from nvmelab.host.doorbells import Doorbells
from nvmelab.host.errors import DeviceError, NotOffered, Stuck
from nvmelab.host.namespaces import Namespace
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import CompletionQueue, Flow, Pending, Release, SubmissionQueue
from nvmelab.link.base import HostLink
from nvmelab.spec.admin import (
    Abort,
    AsyncEventRequest,
    CreateIoCq,
    CreateIoSq,
    DeleteIoCq,
    DeleteIoSq,
    DoorbellBufferConfig,
    GetFeatures,
    GetLogPage,
    Identify,
    SetFeatures,
)
from nvmelab.spec.commands import Command, Completion
from nvmelab.spec.features import Feature
from nvmelab.spec.identify import IDENTIFY_SIZE, Cns, IdentifyController, IdentifyNamespace
from nvmelab.spec.registers import (
    CQE_SIZE,
    IOCQES,
    IOSQES,
    OFFSET,
    REGISTERS,
    SQE_SIZE,
    Aqa,
    Cap,
    Cc,
    Csts,
)

_SIZE = {register.name: register.size for register in REGISTERS}
_ALL_ONES = 0xFFFF_FFFF


class Controller:
    """A controller behind `link`, not enabled yet. Methods raise DeviceError when the device does
    not play along, and LinkError when it is gone."""

    def __init__(self, link: HostLink) -> None:
        self.link = link
        self.cap = Cap.decode(self["cap"].to_bytes(8, "little"))
        self.pool = Pool(link)
        self.doorbells = Doorbells(link, self.cap.dstrd)
        self.admin: Qpair
        """The admin queue pair; there is one after `enable`."""
        self.cqs: dict[int, CompletionQueue] = {}
        """I/O completion queues by identifier."""
        self.sqs: dict[int, SubmissionQueue] = {}
        self.io_queues = 0
        """I/O queue pairs that may be created, after `start`."""

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the link. The controller is left as it is."""
        self.link.close()

    # Registers.

    def __getitem__(self, register: int | str) -> int:
        """A register: by name, such as `csts`, in its size; or 4 bytes at an offset."""
        if isinstance(register, str):
            if register not in OFFSET:
                raise KeyError(f"no register {register!r}; there are {', '.join(OFFSET)}")
            return self.link.read(OFFSET[register], _SIZE[register])
        return self.link.read(register, 4)

    def __setitem__(self, register: int | str, value: int) -> None:
        if isinstance(register, str):
            self.link.write(OFFSET[register], _SIZE[register], value)
        else:
            self.link.write(register, 4, value)

    @property
    def csts(self) -> Csts:
        """Raises DeviceError if all bits are set, which means that nothing answers."""
        value = self["csts"]
        if value == _ALL_ONES:
            raise DeviceError("CSTS reads as all ones: the device does not answer any more")
        return Csts.from_words((value,))

    @property
    def cc(self) -> Cc:
        return Cc.from_words((self["cc"],))

    def write_cc(self, cc: Cc) -> None:
        self["cc"] = int.from_bytes(cc.encode(), "little")

    def wait_csts(self, what: str, **wanted: int) -> Csts:
        """Until fields of CSTS have these values. Raises Stuck, and DeviceError if CFS is set and
        was not waited for."""
        csts = self.csts

        def look() -> bool:
            nonlocal csts
            csts = self.csts
            met = all(getattr(csts, name) == value for name, value in wanted.items())
            return met or (bool(csts.cfs) and "cfs" not in wanted)

        if not self.link.wait(look):
            raise Stuck(
                f"{what} never came: {self.link.name} is at rest; CC {self['cc']:#x}, {csts} "
                f"(CAP.TO is {self.cap.to * 0.5:g} s)",
                ref="Base 2.2, 3.1.4.6",
            )
        if csts.cfs and "cfs" not in wanted:
            raise DeviceError(f"CSTS.CFS is set while waiting for {what}", ref="Base 2.2, 3.1.4.6")
        return csts

    # Life cycle.

    def disable(self) -> None:
        """Controller Reset: CC.EN from 1 to 0, until CSTS.RDY is 0. All queues and commands are
        gone, and all memory is given back."""
        cc = self.cc
        if cc.en:
            self.write_cc(msgspec.structs.replace(cc, en=0, shn=0))
        self.wait_csts("CSTS.RDY 0", rdy=0)
        self.forget()

    def forget(self) -> None:
        """The device has been reset: no queue exists any more, and no memory is in use."""
        self._forget_queues()
        self.link.free_all()
        self.pool = Pool(self.link)

    def _forget_queues(self) -> None:
        self.cqs.clear()
        self.sqs.clear()
        self.doorbells = Doorbells(self.link, self.cap.dstrd)

    def prepare(self, *, sq_entries: int = 32, cq_entries: int = 32) -> None:
        """Set up AQA, ASQ and ACQ for a new admin queue pair."""
        rings = (self.pool.zeroed(sq_entries * SQE_SIZE), self.pool.zeroed(cq_entries * CQE_SIZE))
        cq = CompletionQueue(self.link, self.doorbells, 0, rings[1], cq_entries, vector=0)
        self.admin = Qpair(
            self.pool, SubmissionQueue(self.link, self.doorbells, 0, rings[0], sq_entries, cq)
        )
        aqa = Aqa(asqs=sq_entries, acqs=cq_entries)
        self["aqa"] = int.from_bytes(aqa.encode(), "little")
        self["asq"], self["acq"] = rings

    def enable(self, *, sq_entries: int = 32, cq_entries: int = 32) -> None:
        """Reset the controller, and enable it with an admin queue pair of these sizes."""
        self.disable()
        self._enable(sq_entries, cq_entries)

    def _enable(self, sq_entries: int, cq_entries: int) -> None:
        self.prepare(sq_entries=sq_entries, cq_entries=cq_entries)
        self.write_cc(Cc(en=1, iosqes=IOSQES, iocqes=IOCQES))
        self.wait_csts("CSTS.RDY 1", rdy=1)

    def enable_beside(self, *, sq_entries: int = 32, cq_entries: int = 32) -> None:
        """Enable a controller that is disabled, and leave all memory that was in use before as it
        is: to see whether the device still touches it."""
        self._forget_queues()
        self._enable(sq_entries, cq_entries)

    def start(self, *, io_queues: int = 16) -> None:
        """Enable the controller and agree on the number of I/O queues."""
        self.enable()
        self.io_queues = self.set_number_of_queues(io_queues)

    def shutdown(self, *, abrupt: bool = False) -> None:
        """Shutdown notification, until the controller says that it is complete."""
        self.write_cc(msgspec.structs.replace(self.cc, shn=2 if abrupt else 1))
        self.wait_csts("CSTS.SHST 2 (shutdown complete)", shst=2)

    # Admin commands.

    def run(self, command: Command | bytes, buffer: Buffer | None = None) -> Completion:
        """One admin command, until it succeeds. Raises CommandFailed and Stuck."""
        return self.admin.submit(command, buffer=buffer).check()

    def buffer(
        self, size: int = 4096, *, offset: int = 0, scattered: bool = False, list_offset: int = 0
    ) -> Buffer:
        """Zeroed memory for data; see `Buffer` for its shapes."""
        buffer = Buffer(
            self.pool, size, offset=offset, scattered=scattered, list_offset=list_offset
        )
        buffer.fill()
        return buffer

    def identify_data(self, cns: int, *, nsid: int = 0, csi: int = 0) -> bytes:
        """The 4096 bytes of one Identify data structure."""
        buffer = self.buffer(IDENTIFY_SIZE)
        prp1, prp2 = buffer.prps()
        self.run(Identify(cns=cns, nsid=nsid, csi=csi, prp1=prp1, prp2=prp2), buffer)
        return buffer.read()

    def identify(self) -> IdentifyController:
        """Identify Controller."""
        return IdentifyController.decode(self.identify_data(Cns.CONTROLLER))

    def identify_namespace(self, nsid: int) -> IdentifyNamespace:
        return IdentifyNamespace.decode(self.identify_data(Cns.NAMESPACE, nsid=nsid))

    def active_namespaces(self) -> list[int]:
        """Identifiers of the namespaces that are attached, in rising order (at most 1024)."""
        data = self.identify_data(Cns.ACTIVE_NAMESPACES)
        words = (int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
        found = []
        for nsid in words:
            if not nsid:
                break
            found.append(nsid)
        return found

    def namespace(self, nsid: int = 1) -> Namespace:
        """One namespace, identified."""
        return Namespace(nsid, self.identify_data(Cns.NAMESPACE, nsid=nsid))

    def log_page(self, lid: int, size: int, *, offset: int = 0, nsid: int = _ALL_ONES) -> bytes:
        """`size` bytes (a multiple of 4) of a log page."""
        buffer = self.buffer(size)
        prp1, prp2 = buffer.prps()
        command = GetLogPage(lid=lid, numd=size // 4, lpo=offset, nsid=nsid, prp1=prp1, prp2=prp2)
        self.run(command, buffer)
        return buffer.read()

    def get_feature(self, fid: int, *, sel: int = 0, nsid: int = 0, cdw11: int = 0) -> int:
        """Dword 0 of Get Features."""
        return self.run(GetFeatures(fid=fid, sel=sel, nsid=nsid, cdw11=cdw11)).dw0

    def set_feature(self, fid: int, value: int, *, nsid: int = 0, save: int = 0) -> int:
        """Dword 0 of Set Features."""
        return self.run(SetFeatures(fid=fid, value=value, nsid=nsid, sv=save)).dw0

    def set_number_of_queues(self, pairs: int) -> int:
        """Ask for that many I/O queue pairs; how many there may be."""
        dw0 = self.set_feature(Feature.NUMBER_OF_QUEUES, pairs - 1 << 16 | pairs - 1)
        return min(dw0 & 0xFFFF, dw0 >> 16) + 1

    def abort(self, pending: Pending) -> Pending:
        """Ask for a command to be aborted; bit 0 of the answer's dword 0 is clear if it was."""
        return self.admin.submit(Abort(sqid=pending.sq.qid, aborted_cid=pending.cid))

    def async_event_request(self) -> Pending:
        """Have the controller tell of the next asynchronous event."""
        return self.admin.submit(AsyncEventRequest())

    def enable_shadow_doorbells(self) -> None:
        """Doorbell Buffer Config: from now on all queues use shadow doorbells and EventIdx."""
        shadow, event_index = self.pool.zeroed(4096), self.pool.zeroed(4096)
        self.run(DoorbellBufferConfig(prp1=shadow, prp2=event_index))
        self.doorbells.use_shadow(shadow, event_index)

    # Queues.

    def _require(self, qid: int, entries: int) -> None:
        """Raise NotOffered for a queue that this controller need not have. (A Create command of
        any kind can be submitted to the admin queue.)"""
        if entries > self.cap.mqes:
            raise NotOffered(f"a queue of {entries} entries: CAP.MQES allows {self.cap.mqes}")
        if self.io_queues and qid > self.io_queues:  # 0: nothing was agreed on
            raise NotOffered(f"an I/O queue {qid}: the controller has {self.io_queues}")

    def create_cq(
        self,
        *,
        entries: int,
        qid: int | None = None,
        vector: int | None = None,
        interrupts: bool = False,
        release: Release = "batch",
    ) -> CompletionQueue:
        """Create an I/O completion queue, with the next free identifier unless told otherwise.
        Raises NotOffered for one beyond CAP.MQES or the number of queues that was agreed on.

        `vector` is the MSI-X vector it raises, and None that it raises none; `interrupts` has it
        looked at only after its vector was raised, which needs one.
        """
        qid = _free(self.cqs) if qid is None else qid
        self._require(qid, entries)
        self.doorbells.begin(2 * qid + 1)
        if interrupts and vector is None:
            if not self.link.vectors:
                raise NotOffered("interrupts: the function has no MSI-X vectors")
            vector = qid % self.link.vectors
        base = self.pool.zeroed(entries * CQE_SIZE)
        ien = int(vector is not None)
        self.run(CreateIoCq(qid=qid, qsize=entries, prp1=base, pc=1, ien=ien, iv=vector or 0))
        cq = CompletionQueue(
            self.link,
            self.doorbells,
            qid,
            base,
            entries,
            vector=vector,
            interrupts=interrupts,
            release=release,
        )
        self.cqs[qid] = cq
        return cq

    def create_sq(
        self,
        *,
        entries: int,
        cq: CompletionQueue,
        qid: int | None = None,
        flow: Flow = "inflight",
        cids: CidPolicy | None = None,
        ring_each: bool = True,
    ) -> Qpair:
        """Create an I/O submission queue on `cq`, with the next free identifier unless told
        otherwise. See `SubmissionQueue` for the policies."""
        qid = _free(self.sqs) if qid is None else qid
        self._require(qid, entries)
        self.doorbells.begin(2 * qid)
        base = self.pool.zeroed(entries * SQE_SIZE)
        self.run(CreateIoSq(qid=qid, qsize=entries, prp1=base, pc=1, cqid=cq.qid))
        sq = SubmissionQueue(
            self.link,
            self.doorbells,
            qid,
            base,
            entries,
            cq,
            flow=flow,
            cids=cids,
            ring_each=ring_each,
        )
        self.sqs[qid] = sq
        return Qpair(self.pool, sq)

    def create_qpair(
        self,
        *,
        entries: int,
        cq_entries: int | None = None,
        flow: Flow = "inflight",
        cids: CidPolicy | None = None,
        ring_each: bool = True,
        interrupts: bool = False,
        release: Release = "batch",
    ) -> Qpair:
        """Create a submission queue and a completion queue of its own, of `entries` each unless
        told otherwise."""
        cq = self.create_cq(entries=cq_entries or entries, interrupts=interrupts, release=release)
        return self.create_sq(entries=entries, cq=cq, flow=flow, cids=cids, ring_each=ring_each)

    def delete_sq(self, qid: int) -> None:
        """Delete an I/O submission queue. Commands that have no completion get none."""
        self.run(DeleteIoSq(qid=qid))
        sq = self.sqs.pop(qid)
        sq.cq.reap()  # what was completed before the queue ended
        del sq.cq.sqs[qid]

    def delete_cq(self, qid: int) -> None:
        """Delete an I/O completion queue to which no submission queue is bound."""
        self.run(DeleteIoCq(qid=qid))
        del self.cqs[qid]

    def delete_qpair(self, qpair: Qpair) -> None:
        """Delete a submission queue and its completion queue."""
        self.delete_sq(qpair.sq.qid)
        self.delete_cq(qpair.cq.qid)

    def state(self) -> str:
        """Every ring, as this side knows it."""
        cqs: Sequence[CompletionQueue] = [self.admin.cq, *self.cqs.values()]
        return "; ".join(cq.state() for cq in cqs)


def _free(used: dict[int, CompletionQueue] | dict[int, SubmissionQueue]) -> int:
    return next(qid for qid in range(1, 0x10000) if qid not in used)
