"""What `nvmelab test` can drive: from the words of a target to an open link.

    inproc                       our controller, in this process
    vfio-user:nvme.sock          any vfio-user NVMe server
    qemu:qemu-system-x86_64      QEMU's own NVMe device, over qtest
    qemu-vfio-user:qemu-...      our controller, through QEMU's vfio-user client, over qtest
    qtest:qemu.sock              whatever QEMU listens there with -qtest unix:...,server=on

The parts of the package are put together here; each link knows nothing of the others.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as HostController
from nvmelab.limits import QEMU_START_S
from nvmelab.link.base import HostLink, HostMemory, LinkError, Storage
from nvmelab.link.inproc import InprocLink
from nvmelab.link.loop import Loop
from nvmelab.link.nbd import NbdServer, blockdev
from nvmelab.link.qtest import Qtest, QtestLink, QtestMemory
from nvmelab.link.vfio_user.client import VfioUserLink
from nvmelab.link.vfio_user.server import Server, ServerError
from nvmelab.memory import GuestMemory
from nvmelab.qemu.binary import QemuError, probe, version_of
from nvmelab.qemu.machine import RAM_BYTES, Machine, require_clock
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

DISK_BYTES = 64 << 20
"""Size of each disk that a target of ours gets."""
DISKS = tuple(f"d{number}" for number in range(8))
"""Several, because QEMU's NBD client (7.2 to 11.1) delivers some replies only after later ones of
the same disk have come: commands to different disks finish in exactly the order that we say."""
KINDS = ("inproc", "vfio-user", "qemu", "qemu-vfio-user", "qtest")


class TargetError(Exception):
    """The words do not name a target. One line for the user."""


class Target(msgspec.Struct, frozen=True):
    """A device that can be opened, again and again."""

    kind: str
    """One of KINDS."""
    where: str = ""
    """A path: of a QEMU, or of a socket."""
    arguments: tuple[str, ...] = ()
    """Words for QEMU's command line."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.where}" if self.where else self.kind


def parse_target(text: str, arguments: Sequence[str] = ()) -> Target:
    """The target that is meant by such words as `qemu:/usr/bin/qemu-system-x86_64`. Raises
    TargetError."""
    kind, colon, where = text.partition(":")
    if kind not in KINDS or (kind == "inproc") == bool(colon) or (colon and not where):
        raise TargetError(
            f"{text!r} is no target; give inproc, vfio-user:SOCKET, qemu:PROGRAM, "
            "qemu-vfio-user:PROGRAM or qtest:SOCKET"
        )
    if arguments and kind not in ("qemu", "qemu-vfio-user"):
        raise TargetError(f"the target {text} takes no words for QEMU after --")
    if kind in ("qemu", "qemu-vfio-user") and "/" not in where:
        found = shutil.which(where)
        if found is None:
            raise TargetError(
                f"no program {where} on the PATH; install it (apt install qemu-system-x86) or "
                f"give its path: {kind}:/path/to/{where}"
            )
        where = found
    return Target(kind, where, tuple(arguments))


MakeController = Callable[[ControllerConfig, list[Namespace], HeldWorker], Controller]
"""How a target of ours gets its controller: tests plant faults here."""


def sound_controller(
    config: ControllerConfig, namespaces: list[Namespace], worker: HeldWorker
) -> Controller:
    """Our controller as it is."""
    return Controller(config, namespaces, GuestMemory(), worker=worker)


def open_target(target: Target, *, controller: MakeController = sound_controller) -> HostLink:
    """A link to the target. Raises LinkError when there is no such thing, or it is no NVMe
    controller; nothing is left behind then."""
    try:
        match target.kind:
            case "inproc":
                return _inproc(controller)
            case "vfio-user":
                return VfioUserLink(target.where)
            case "qtest":
                return _attach(target.where)
            case "qemu":
                return _qemu(target)
            case _:
                return _qemu_vfio_user(target, controller)
    except (QemuError, ServerError) as error:
        raise LinkError(str(error)) from None


def connect(target: str = "inproc", *qemu: str) -> HostController:
    """A started controller: enabled, identified as NVMe, the number of I/O queues agreed on.

    `target` is as for `nvmelab test`; `qemu` are words for QEMU's command line. Raises TargetError,
    LinkError and DeviceError, with nothing left behind.
    """
    link = open_target(parse_target(target, qemu))
    try:
        controller = HostController(link)
        controller.start()
    except BaseException:
        link.close()
        raise
    return controller


def _our_function(
    controller: MakeController, stack: contextlib.ExitStack
) -> tuple[HeldWorker, NvmeFunction]:
    """Our controller on disks that are freed with the stack."""
    worker = HeldWorker()
    namespaces = []
    for nsid, name in enumerate(DISKS, 1):
        disk = RamBackend(DISK_BYTES, name=name)
        stack.callback(disk.close)
        namespaces.append(Namespace(nsid, disk, "test"))
    return worker, NvmeFunction(controller(ControllerConfig(serial="test"), namespaces, worker))


def _inproc(controller: MakeController) -> HostLink:
    with contextlib.ExitStack() as stack:
        worker, function = _our_function(controller, stack)
        return InprocLink(function, storage=worker, close=stack.pop_all().close)


def _connect(machine: Machine, loop: Loop) -> Qtest:
    """A qtest connection to a QEMU that is starting up. What it needs for that from the loop, such
    as its disks, is served meanwhile."""
    path = machine.qtest_path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + QEMU_START_S
    while error := sock.connect_ex(path):
        if machine.ended():
            sock.close()
            raise LinkError(machine.last_words())
        if time.monotonic() > deadline:
            sock.close()
            raise LinkError(f"no answer on {path}: {os.strerror(error)}")
        loop.turn(0.002)
    sock.setblocking(False)
    return Qtest(sock, loop, machine.last_words)


def _attach(path: str) -> HostLink:
    """The link to a QEMU that somebody else has started."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if error := sock.connect_ex(path):
        sock.close()
        raise LinkError(
            f"{path}: {os.strerror(error)}; start QEMU with -qtest unix:{path},server=on,wait=off"
        )
    sock.setblocking(False)
    gone = f"the QEMU that listened on {path} has closed the connection"
    with contextlib.ExitStack() as stack:
        loop = Loop()
        stack.callback(loop.close)
        qtest = Qtest(sock, loop, lambda: gone)
        stack.callback(qtest.close)
        return _qtest_link(
            stack, qtest, loop, QtestMemory(qtest), f"QEMU on {path}", _can_step(qtest)
        )


def _qtest_link(
    stack: contextlib.ExitStack,
    qtest: Qtest,
    loop: Loop,
    memory: HostMemory,
    name: str,
    clock: bool,
    storage: Storage | None = None,
    activity: Callable[[], int] = lambda: 0,
) -> HostLink:
    """The link; closing it unwinds what is on `stack`. Without `storage` the disks are somebody
    else's."""
    kept = stack.pop_all()
    try:
        return QtestLink(
            qtest,
            loop,
            memory,
            RAM_BYTES,
            name=name,
            clock=clock,
            storage=storage,
            activity=activity,
            close=kept.close,
            foreign=storage is None,
        )
    except BaseException:
        kept.close()
        raise


def _can_step(qtest: Qtest) -> bool:
    """The virtual clock can be stepped: not without the qtest accelerator."""
    try:
        qtest.step_clock(1)
    except LinkError:
        return False
    return True


def _start(
    target: Target, folder: Path, loop: Loop, devices: Sequence[str]
) -> tuple[Machine, Qtest]:
    """A QEMU with these devices and a qtest connection to it; with a virtual clock if this QEMU
    can."""
    words = [*devices, *target.arguments]
    machine = Machine(target.where, folder, words, clock=True)
    try:
        try:
            return machine, _connect(machine, loop)
        except LinkError:
            if "accelerator" not in machine.messages():
                raise
        machine.close()
        machine = Machine(target.where, folder, words, clock=False)
        return machine, _connect(machine, loop)
    except BaseException:
        machine.close()
        raise


def _link(
    target: Target,
    stack: contextlib.ExitStack,
    loop: Loop,
    devices: Sequence[str],
    storage: Storage | None,
    activity: Callable[[], int],
    what: str = "",
) -> HostLink:
    """Start QEMU with these devices; the link to it. Closing it unwinds `stack`."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nvmelab-")))
    machine, qtest = _start(target, folder, loop, devices)
    stack.callback(machine.close)
    stack.callback(qtest.close)
    qtest.do("endianness")  # the first answer: now all of QEMU is there
    fd = machine.ram_fd()
    try:
        mapping = mmap.mmap(fd, RAM_BYTES)
    finally:
        os.close(fd)
    memory = GuestMemory()
    memory.map(0, memoryview(mapping))
    # The driver's queues refer to each other, and so stay until Python looks for such circles.
    # Accesses raise MemoryFault from now on; what is mapped goes with the last view of it.
    stack.callback(memory.clear)
    version = version_of(target.where)
    require_clock(version, machine.clock)
    name = f"QEMU {'.'.join(map(str, version))}{what}"
    return _qtest_link(stack, qtest, loop, memory, name, machine.clock, storage, activity)


def _qemu(target: Target) -> HostLink:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nvmelab-"))
        loop = Loop()
        stack.callback(loop.close)
        path = os.path.join(folder, "nbd")
        nbd = NbdServer(path, loop, DISKS, DISK_BYTES)
        stack.callback(nbd.close)
        devices = [word for name in DISKS for word in ("-blockdev", blockdev(name, path))]
        if not any(_is_nvme(word) for word in target.arguments):
            devices += ["-device", "nvme,id=nvme0,serial=nvmelab,addr=4"]
            for nsid, name in enumerate(DISKS, 1):
                devices += ["-device", f"nvme-ns,drive={name},nsid={nsid}"]
        theirs = any(word in ("-drive", "-blockdev") for word in target.arguments)
        storage = None if theirs else nbd
        return _link(target, stack, loop, devices, storage, lambda: nbd.activity)


def _is_nvme(word: str) -> bool:
    """Words of `-device` that name an NVMe controller."""
    if word.startswith("{"):
        with contextlib.suppress(ValueError):
            return bool(json.loads(word).get("driver") == "nvme")
    return word == "nvme" or word.startswith("nvme,")


def _qemu_vfio_user(target: Target, controller: MakeController) -> HostLink:
    probe(target.where).require_vfio_user(target.where)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nvmelab-"))
        loop = Loop()
        stack.callback(loop.close)
        path = os.path.join(folder, "nvme.sock")
        worker, function = _our_function(controller, stack)
        server = Server(function, path, loop)
        stack.callback(server.close)
        turns = 0

        def turn() -> bool:
            nonlocal turns
            busy = function.run()
            turns += busy
            return busy

        loop.add_worker(turn)
        device = {"driver": "vfio-user-pci", "addr": "4", "socket": {"path": path, "type": "unix"}}
        devices = ["-device", json.dumps(device)]
        return _link(target, stack, loop, devices, worker, lambda: turns, " with vfio-user-pci")
