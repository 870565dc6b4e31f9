"""A host without any cleverness: it drives a controller through BAR0, memory and steps only.

    bench = Bench(queue_entries=4)
    bench.enable()
    cq = bench.create_cq(1, entries=4)
    sq = bench.create_sq(1, entries=4, cq=cq)
    sq.submit(Read(cid=7, nsid=1, prp1=bench.allocate(4096)))
    bench.settle()
    (completion,) = cq.reap()

Nothing happens on the device's side between two calls of `settle`, `run`, `step` or `execute`. The
rings keep no account of what is outstanding: they do whatever a test tells them to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nvmelab.device.controller import Controller, ControllerConfig, Step
from nvmelab.device.doorbells import DoorbellPage
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.memory import GuestMemory
from nvmelab.spec.admin import CreateIoCq, CreateIoSq, DoorbellBufferConfig
from nvmelab.spec.commands import Command, Completion
from nvmelab.spec.registers import (
    CQE_SIZE,
    DOORBELLS,
    IOCQES,
    IOSQES,
    OFFSET,
    SQE_SIZE,
    Aqa,
    Cc,
    Csts,
)
from nvmelab.storage.base import Backend
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend
from nvmelab.storage.worker import StorageWorker
from nvmelab.trace.bus import Bus
from nvmelab.trace.events import EVENTS, OURS

PAGE = 4096
RAM = 0x10_0000
"""Bus address of the only memory there is."""
NO_RAM = 0x7000_0000_0000
"""A page-aligned bus address where there is none."""


class ManualWorker(HeldWorker):
    """Storage that reads and writes at once, and does what may take long when it is released."""

    carries_data = False

    def __init__(self) -> None:
        super().__init__()
        self.hold = True


class HostCq:
    """The host's side of a completion queue."""

    def __init__(self, bench: Bench, qid: int, base: int, entries: int) -> None:
        self.qid, self.base, self.entries = qid, base, entries
        self.head, self.phase = 0, 1
        self.told = 0
        """The head that the device was told last."""
        self.bench = bench

    def entry(self, slot: int) -> Completion:
        """What stands in that slot, new or old."""
        return Completion.decode(self.bench.memory.read(self.base + slot * CQE_SIZE, CQE_SIZE))

    def reap(self, limit: int | None = None, *, release: bool = True) -> list[Completion]:
        """New entries in order, at most `limit`. `release` writes the head doorbell after them."""
        found: list[Completion] = []
        while limit is None or len(found) < limit:
            entry = self.entry(self.head)
            if entry.phase != self.phase:
                break
            found.append(entry)
            self.head += 1
            if self.head == self.entries:
                self.head, self.phase = 0, self.phase ^ 1
        if found and release:
            self.release()
        return found

    def release(self) -> None:
        """Write the head doorbell with the entries reaped so far."""
        self.ring(self.head)

    def ring(self, value: int) -> None:
        """Tell the device any value of the head."""
        self.told, old = value, self.told
        self.bench.tell(2 * self.qid + 1, old, value)


class HostSq:
    """The host's side of a submission queue."""

    def __init__(self, bench: Bench, qid: int, base: int, entries: int, cq: HostCq) -> None:
        self.qid, self.base, self.entries, self.cq = qid, base, entries, cq
        self.tail = 0
        self.told = 0
        """The tail that the device was told last."""
        self.bench = bench

    def put(self, command: Command | bytes) -> None:
        """Write one entry at the tail without telling the device."""
        sqe = command if isinstance(command, bytes) else command.encode()
        self.bench.memory.write(self.base + self.tail * SQE_SIZE, sqe)
        self.tail = (self.tail + 1) % self.entries

    def ring(self, value: int | None = None) -> None:
        """Tell the device the tail, or any value."""
        value = self.tail if value is None else value
        self.told, old = value, self.told
        self.bench.tell(2 * self.qid, old, value)

    def submit(self, *commands: Command | bytes) -> None:
        """Write the entries and tell the device once."""
        for command in commands:
            self.put(command)
        self.ring()


class Bench:
    """One controller with one namespace of 1 MiB in RAM unless told otherwise, bus master and
    MSI-X on, all trace events recorded. Keywords of ControllerConfig go to it."""

    def __init__(
        self,
        *,
        backends: Sequence[Backend] | None = None,
        worker: StorageWorker | None = None,
        doorbells: DoorbellPage | None = None,
        ram: int = 8 << 20,
        trace: bool = True,
        **config: object,
    ) -> None:
        self.memory = GuestMemory()
        self.ram = bytearray(ram)
        self.memory.map(RAM, self.ram)
        self._next = RAM
        self.backends = [RamBackend(1 << 20)] if backends is None else backends
        self.controller = Controller(
            ControllerConfig(**config),  # type: ignore[arg-type]
            [Namespace(i, backend, "test") for i, backend in enumerate(self.backends, 1)],
            self.memory,
            worker=worker,
            doorbells=doorbells,
        )
        self.function = NvmeFunction(self.controller)
        self.interrupts: list[int] = []
        """Vectors in the order in which they were raised."""
        self.function.interrupt = self.interrupts.append
        self.events: list[tuple[str, tuple[object, ...]]] = []
        """Trace events since the last `traced`, those that QEMU has too: (name, values)."""
        if trace:
            bus = Bus()
            bus.subscribe(
                lambda name, values: self.events.append((name, values)), set(EVENTS) - set(OURS)
            )
            self.controller.trace = bus.emitter
        self.shadow: int | None = None
        """Where the shadow doorbells are; the EventIdx page follows. None: they are off."""
        self.shadow_admin = False
        self.rings = 0
        """Doorbells that were really written."""
        self.between: Callable[[], None] = lambda: None
        """Called between the store to a shadow and the look at its EventIdx."""
        self.bus_master(True)
        self.msix(True)

    # PCI.

    def bus_master(self, on: bool) -> None:
        self.function.config_write(4, bytes([0b110 if on else 0b010, 0]))

    def msix(self, on: bool) -> None:
        self.function.config_write(0x43, bytes([0x80 if on else 0]))

    # Registers.

    def read(self, offset: int, size: int = 4) -> int:
        return self.function.bar_read(0, offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.function.bar_write(0, offset, size, value)

    def register(self, name: str, size: int = 4) -> int:
        return self.read(OFFSET[name], size)

    @property
    def csts(self) -> Csts:
        return Csts.from_words((self.register("csts"),))

    # Doorbells. Index 2y is the tail of SQ y, 2y + 1 the head of CQ y.

    def tell(self, index: int, old: int, new: int) -> None:
        """Tell the device a new tail or head: by the doorbell, or the way shadow doorbells want it
        once they are on. The admin queue has only the doorbell, as in Linux, unless
        `shadow_admin`."""
        if self.shadow is None or (index < 2 and not self.shadow_admin):
            self.ring(index, new)
            return
        self.memory.store_u32(self.shadow + 4 * index, new)
        self.between()
        if (new - self.event_index(index) - 1) & 0xFFFF < (new - old) & 0xFFFF:
            self.ring(index, new)

    def ring(self, index: int, value: int) -> None:
        """Write the doorbell itself."""
        self.rings += 1
        self.write(DOORBELLS + 4 * index, value)

    def event_index(self, index: int) -> int:
        """The EventIdx of a doorbell."""
        assert self.shadow is not None
        return self.memory.load_u32(self.shadow + PAGE + 4 * index)

    def use_shadow(self, *, admin: bool = False) -> None:
        """Switch shadow doorbells on. It must succeed."""
        shadow = self.allocate(2 * PAGE)
        command = DoorbellBufferConfig(prp1=shadow, prp2=shadow + PAGE)
        assert self.execute(command).status == 0
        self.shadow, self.shadow_admin = shadow, admin

    def write_cc(self, **fields: int) -> None:
        """Write CC; fields that are not given are as a driver sets them, and EN is 0."""
        cc = Cc(**{"iosqes": IOSQES, "iocqes": IOCQES, **fields})
        self.write(OFFSET["cc"], int.from_bytes(cc.encode(), "little"))

    # Steps.

    def enabled(self) -> list[Step]:
        return self.controller.enabled()

    def step(self, name: str, id: int = 0) -> None:
        """Take this step, which must be enabled."""
        assert Step(name, id) in self.enabled(), f"{name} {id} is not enabled: {self.enabled()}"
        self.controller.take(Step(name, id))

    def run(self) -> bool:
        return self.function.run()

    def settle(self) -> None:
        """Run until the device has nothing left to do."""
        for _ in range(10_000):
            if not self.run():
                return
        raise AssertionError(f"the device never comes to rest: {self.enabled()}")

    # Memory and queues.

    def allocate(self, size: int, *, align: int = PAGE) -> int:
        """The bus address of that many bytes of zeroes."""
        addr = -(-self._next // align) * align
        self._next = addr + -(-size // PAGE) * PAGE
        assert self._next <= RAM + len(self.ram)
        return addr

    def prepare(self, sq_entries: int = 32, cq_entries: int = 32, *, align: int = PAGE) -> None:
        """Set up AQA, ASQ and ACQ for an admin queue pair: `admin` and `admin_cq`."""
        self.admin_cq = HostCq(self, 0, self.allocate(cq_entries * 16, align=align), cq_entries)
        self.admin = HostSq(
            self, 0, self.allocate(sq_entries * 64, align=align), sq_entries, self.admin_cq
        )
        aqa = Aqa(asqs=sq_entries, acqs=cq_entries)
        self.write(OFFSET["aqa"], int.from_bytes(aqa.encode(), "little"))
        self.write(OFFSET["asq"], self.admin.base, 8)
        self.write(OFFSET["acq"], self.admin_cq.base, 8)

    def enable(self, sq_entries: int = 32, cq_entries: int = 32) -> None:
        """Enable the controller with a new admin queue pair, until RDY is 1."""
        self.prepare(sq_entries, cq_entries)
        self.write_cc(en=1)
        self.settle()
        assert (self.csts.rdy, self.csts.cfs) == (1, 0)

    def execute(self, command: Command | bytes, sq: HostSq | None = None) -> Completion:
        """Submit one command (to the admin queue unless told otherwise), let the device come to
        rest, and reap the one completion there must be."""
        sq = self.admin if sq is None else sq
        sq.submit(command)
        self.settle()
        found = sq.cq.reap()
        assert len(found) == 1, f"completions of one command: {found}"
        return found[0]

    def create_cq(self, qid: int, *, entries: int, ien: int = 1, iv: int | None = None) -> HostCq:
        """Create a completion queue with vector `qid` unless told otherwise. It must succeed."""
        base = self.allocate(entries * CQE_SIZE)
        self.memory.write(base, bytes(entries * CQE_SIZE))
        vector = qid if iv is None else iv
        done = self.execute(CreateIoCq(qid=qid, qsize=entries, prp1=base, ien=ien, iv=vector))
        assert done.status == 0, f"create CQ: {done}"
        return HostCq(self, qid, base, entries)

    def create_sq(self, qid: int, *, entries: int, cq: HostCq) -> HostSq:
        """Create a submission queue. It must succeed."""
        base = self.allocate(entries * SQE_SIZE)
        done = self.execute(CreateIoSq(qid=qid, qsize=entries, prp1=base, cqid=cq.qid))
        assert done.status == 0, f"create SQ: {done}"
        return HostSq(self, qid, base, entries, cq)

    def create_pair(self, qid: int = 1, *, entries: int = 16) -> HostSq:
        """A submission queue with a completion queue of its own of the same size."""
        return self.create_sq(qid, entries=entries, cq=self.create_cq(qid, entries=entries))

    # Trace.

    def traced(self, *names: str) -> list[tuple[str, tuple[object, ...]]]:
        """Events recorded since the last call; only those of `names` if any are given."""
        events, self.events[:] = list(self.events), []
        return [event for event in events if not names or event[0] in names]
