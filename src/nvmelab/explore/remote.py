"""A recorded run on somebody else's device.

Where the device does nothing before a timer of a virtual clock that we hold, as QEMU's before 7.1,
its steps are forced one by one. A run that was searched with an eager device is forced on every
device: it has its turn after each step of the driver and of the storage. In both cases the device
must then be where the explored system is: as many commands at the storage, the same entries in the
completion queue. Where it is not, or where it goes on by itself, the run is followed as far as that
allows: the driver and the storage keep to the recorded steps, and the device has its turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nvmelab.explore.replay import Replay
from nvmelab.explore.setting import Setting, label_text
from nvmelab.explore.system import DEVICE_STEPS, Label
from nvmelab.host.driver import Controller
from nvmelab.host.errors import DeviceError
from nvmelab.host.queues import SubmissionQueue
from nvmelab.host.stepped import Polling
from nvmelab.link.base import Storage
from nvmelab.link.qtest import QtestLink
from nvmelab.spec.nvm import Read
from nvmelab.spec.registers import CQE_SIZE

_BLOCK_MAX = 4096
_TIMER_NS = 500
"""After a doorbell or a finished command, QEMU's device before 7.1 looks at the queue."""
_APART_NS = 100


class NotForThis(Exception):
    """The run cannot be taken on this device. One line for the user."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of it."""

    hang: bool
    """It came to rest with a command outstanding."""
    error: str
    """What the device did that no device may, with its reference; empty if nothing."""
    forced: int
    """Steps after each of which the device was where the explored system is, from the first on."""
    followed: int
    """Later steps that could be taken."""
    skipped: int
    """Steps that could not."""
    parted: str
    """How the device left the recorded run; empty if it never did."""
    rings: str
    """How the rings stand at the end."""


def replay_on(controller: Controller, replay: Replay) -> Outcome:
    """Take the run on a started controller, on a new queue pair. Raises NotForThis, LinkError,
    SettingError and ReplayError."""
    setting = replay.setting
    storage = controller.link.storage
    if replay.result != "hang":
        raise NotForThis(f"the run breaks {replay.rule}; only hangs can be taken on a target")
    if setting.grain != "coarse" or setting.doorbells != "together":
        raise NotForThis("only runs in coarse steps, doorbells together, can be taken on a target")
    if setting.fault:
        raise NotForThis(f"the run needs the planted fault {setting.fault}")
    if storage is None:
        raise NotForThis(f"{controller.link.name}: there is no hand on its storage")
    if setting.entries > controller.cap.mqes:
        raise NotForThis(f"{controller.link.name}: its queues have at most {controller.cap.mqes}")
    run = _Run(controller, storage, setting)
    storage.hold = True
    try:
        return run.take(replay.steps(), eager=setting.eager)
    finally:
        storage.let_go()


class _Timers:
    """When the timers of the SQ and of the CQ end, in ns since a moment. Two that were started at
    different times end one after the other; whatever happens between the two ends has to fit in."""

    def __init__(self, link: QtestLink) -> None:
        self.link = link
        self._now = 0
        self._ends: dict[str, int] = {}

    def start(self, *queues: str) -> None:
        """The timers of these queues are about to be started."""
        started_now = self._now + _TIMER_NS in self._ends.values()
        if started_now:
            room = min(self._ends.values()) - self._now
            apart = max(1, min(_APART_NS, room // 2))
            self.link.advance(apart)
            self._now += apart
        for queue in queues:
            self._ends[queue] = self._now + _TIMER_NS

    def end(self) -> bool:
        """Let the next one end, if there is one. True if both have ended in this moment: the head
        doorbell of a full CQ starts both."""
        if not self._ends:
            return False
        now = min(self._ends.values())
        self.link.advance(now - self._now)
        ended = [queue for queue, end in self._ends.items() if end == now]
        self._now, self._ends = now, {q: end for q, end in self._ends.items() if q not in ended}
        return len(ended) == 2


class _Run:
    def __init__(self, controller: Controller, storage: Storage, setting: Setting) -> None:
        self._link = controller.link
        self._storage = storage
        self._qpair = controller.create_qpair(
            entries=setting.entries, flow="sqhd", release="entry", ring_each=False
        )
        self._driver = Polling(self._qpair.sq, self._prepare)
        self._namespaces = controller.active_namespaces()
        # More are never outstanding: see `explore.system`.
        self._buffer = controller.buffer(_BLOCK_MAX * (2 * setting.entries + 2))
        self._system = setting.system()
        self._begun = self._followed = self._skipped = 0

    def _prepare(self, sq: SubmissionQueue) -> tuple[int, bytes]:
        """A read, by turns to different namespaces: commands to one may keep their order."""
        cid = sq.cids(sq.outstanding)
        nsid = self._namespaces[cid % len(self._namespaces)]
        addr = self._buffer.addr + _BLOCK_MAX * cid
        return cid, Read(nsid=nsid, slba=cid, nlb=1, prp1=addr).encode()

    def take(self, labels: Sequence[Label], *, eager: bool) -> Outcome:
        forced, parted, error = 0, "", ""
        try:
            forced, parted = self._force(labels, eager=eager)
            self._follow(labels[self._begun :])
            self._finish()
        except DeviceError as broken:
            error = str(broken)
        return Outcome(
            hang=not error and bool(self._qpair.outstanding),
            error=error,
            forced=forced,
            followed=self._followed,
            skipped=self._skipped,
            parted=parted,
            rings=self._qpair.state(),
        )

    # Forced.

    def _force(self, labels: Sequence[Label], *, eager: bool) -> tuple[int, str]:
        """Force steps until the device parts from the explored system: how many were, and why it
        ended there."""
        link, system = self._link, self._system
        timers = _Timers(link) if isinstance(link, QtestLink) and link.clock and not eager else None
        if not timers and not eager:
            return 0, "the device goes on by itself: there is no clock that holds it"
        link.settle()
        forced = 0
        for number, label in enumerate(labels, 1):
            if label not in system.enabled():
                raise NotForThis(f"step {number} ({label_text(label)}) is not possible there")
            full = system.cq.full
            system.take(label)
            self._begun = number
            if timers:
                ahead = self._timed(timers, label, full)
            else:
                self._act(label)
                ahead = any(name in DEVICE_STEPS for name, _id in system.enabled())
                if not ahead:
                    link.settle()
            if ahead:
                continue  # one of us has taken a step that the other will take next
            if why := self._differs():
                return forced, f"after step {number} ({label_text(label)}) {why}"
            forced = number
        return forced, ""

    def _timed(self, timers: _Timers, label: Label, full: bool) -> bool:
        """Take a step of a device that waits for its timers, or in front of it; `full` says that
        the completion queue was. True if the device has taken its next step as well."""
        name = label[0]
        if name in DEVICE_STEPS:
            ahead = timers.end()
        else:
            ahead = False
            if name == "submit":
                timers.start("sq")
            elif name == "complete":
                timers.start("cq")
            elif full:
                timers.start("sq", "cq")
            self._act(label)
        timers.link.idle()
        return ahead

    def _act(self, label: Label) -> bool:
        """Take a step of the driver or the storage; the device's own are not ours to take. False if
        it is not possible."""
        name, index = label
        if name == "complete":
            held = self._storage.held()
            if held:
                self._storage.release(min(index, held - 1))
            return held > 0
        if name in DEVICE_STEPS:
            return True
        possible = name in self._driver.enabled()
        if possible:
            self._driver.take(name)
        return possible

    def _differs(self) -> str:
        """How the device differs from the explored system."""
        held, expected = self._storage.held(), len(self._system.in_flight())
        if held != expected:
            commands = "1 command" if held == 1 else f"{held} commands"
            return f"its storage has {commands} to do, not {expected}"
        cq = self._qpair.cq
        ours = bytes(self._system.cq_ring)
        theirs = self._link.memory.read(cq.base, cq.entries * CQE_SIZE)
        for slot in range(cq.entries):
            entry = slice(slot * CQE_SIZE + 8, (slot + 1) * CQE_SIZE)  # without the result
            if ours[entry] != theirs[entry]:
                return f"slot {slot} of its completion queue differs"
        return ""

    # Followed.

    def _follow(self, labels: Sequence[Label]) -> None:
        """The steps of the driver and of the storage, as far as they can be taken."""
        for label in labels:
            self._link.settle()
            if label[0] not in DEVICE_STEPS:
                possible = self._act(label)
                self._followed += possible
                self._skipped += not possible

    def _finish(self) -> None:
        """What anybody owes, until nothing is left but to submit."""
        driver, storage = self._driver, self._storage

        def something() -> bool:
            return storage.held() > 0 or "reap" in driver.enabled()

        while self._qpair.outstanding and self._link.wait(something):
            if "reap" in driver.enabled():
                driver.take("reap")
            else:
                storage.release()
