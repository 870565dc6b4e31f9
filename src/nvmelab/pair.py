"""A driver and a device in one process, and a judge of what the device's events tell: what the
corpus of breaches is tried on.

The workload touches everything that the rules are about, in the way it should be done: enabling,
queues of a few entries with and without interrupts, data of one page and of many, events, aborts,
deletion, shutdown, reset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import Verdict, judge
from nvmelab.device.controller import Controller as Device
from nvmelab.device.controller import ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.errors import DeviceError, Stuck
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.spec.features import Feature
from nvmelab.spec.logpages import LogPage
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

CONFIG = ControllerConfig(queue_entries=64, io_queues=8, vectors=9)


class JudgedLink(InprocLink):
    """Asks the judge whenever the device is at rest."""

    def __init__(self, device: Device, at_rest: Callable[[], None], storage: HeldWorker) -> None:
        self._at_rest = at_rest
        super().__init__(NvmeFunction(device), size=4 << 20, storage=storage)

    def wait(self, done: Callable[[], bool]) -> bool:
        came = super().wait(done)
        if not came and self.storage and not self.storage.held():
            self._at_rest()
        return came


class Pair:
    """The driver, the device behind it, and what the judge has said at each rest."""

    def __init__(self, kind: type[Device] = Device, waived: Iterable[str] = ()) -> None:
        storage = HeldWorker()
        namespaces = [Namespace(1, RamBackend(1 << 20), "pair")]
        self.device = kind(CONFIG, namespaces, GuestMemory(), worker=storage)
        self.live = LiveMonitor(waived)
        self.device.trace = self.live.emit
        self.rests: list[Verdict] = []
        link = JudgedLink(self.device, lambda: self.rests.append(self.verdict(rest=True)), storage)
        self.driver = Driver(link)

    def verdict(self, *, rest: bool) -> Verdict:
        """What is to be said now."""
        return judge(self.live.monitor, rest=rest, time_of=_no_time)

    def run(self, act: Callable[[Driver], None]) -> None:
        """Let the driver act. That a faulty device makes it give up is no matter here."""
        try:
            act(self.driver)
            self.driver.link.settle()
        except (DeviceError, Stuck):
            pass


def _no_time(_event: int) -> float:
    """Nothing takes time in one process, so nothing waits for long."""
    return 0.0


def workload(nvme: Driver) -> None:
    """Everything, as it should be done."""
    nvme.start(io_queues=4)
    nvme.identify()
    nvme.active_namespaces()
    nvme.namespace(1)
    requests = [nvme.async_event_request() for _ in range(2)]
    nvme.link.settle()
    told = nvme.create_qpair(entries=4, interrupts=True)
    polled = nvme.create_qpair(entries=3)
    for number in range(9):  # around the rings, with either phase
        told.write(slba=8 * number, data=bytes(4096)).check()
        polled.read(slba=8 * number, nlb=8).data()
    second = nvme.create_sq(entries=4, cq=told.cq)  # of the same completion queue
    pending = [queue.read(slba=0, nlb=8) for queue in (told, second)]
    for one in pending:
        one.check()
    for size, offset, list_offset in ((8192, 0, 0), (8192, 512, 0), (65536, 512, 1024)):
        buffer = nvme.buffer(size, offset=offset, scattered=True, list_offset=list_offset)
        told.write(slba=0, buffer=buffer).check()
        told.read(slba=0, nlb=size // 512, buffer=buffer).check()
    held_back(nvme)
    told.flush().check()
    told.write_zeroes(slba=0, nlb=8).check()
    nvme.log_page(LogPage.SMART, 512)
    nvme.set_feature(Feature.ASYNC_EVENT_CONFIGURATION, 0xFF)
    nvme.set_feature(Feature.TEMPERATURE_THRESHOLD, 1)  # it is warmer: an event
    requests[0].check()
    nvme.log_page(LogPage.SMART, 512)
    nvme.abort(requests[1]).check()
    requests[1].wait()
    nvme.delete_sq(second.qid)
    nvme.delete_qpair(polled)
    nvme.link.settle()
    late = told.read(slba=0)
    nvme.link.settle()
    late.check()
    nvme.shutdown()
    nvme.start(io_queues=2)
    again = nvme.create_qpair(entries=2)
    again.read(slba=0).check()
    leave_behind(nvme)
    nvme.start(io_queues=2)
    nvme.enable_shadow_doorbells()
    nvme.create_qpair(entries=4).read(slba=0).check()
    nvme.enable()


def held_back(nvme: Driver) -> None:
    """A completion queue that is full, and is emptied then."""
    queue = nvme.create_qpair(entries=8, cq_entries=3, release="held")
    pending = [queue.read(slba=number) for number in range(5)]
    nvme.link.settle()
    for _ in pending:
        queue.cq.reap()
        queue.cq.ring()
        nvme.link.settle()
    nvme.delete_qpair(queue)


def leave_behind(nvme: Driver) -> None:
    """A reset while commands are being carried out, and one is not fetched yet."""
    queue = nvme.create_qpair(entries=4)
    storage = nvme.link.storage
    assert storage
    storage.hold = True
    queue.read(slba=0)
    queue.read(slba=1)
    nvme.link.settle()
    queue.read(slba=2)
    nvme.write_cc(type(nvme.cc)())
    storage.let_go()
    nvme.link.settle()
    nvme.wait_csts("CSTS.RDY 0", rdy=0)
    nvme.forget()
