"""Taking a recorded run on a device that goes on by itself, and what cannot be taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from nvmelab.corpus.personas import PERSONAS
from nvmelab.device.controller import Controller as Device
from nvmelab.device.controller import ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.remote import NotForThis, replay_on
from nvmelab.explore.replay import Replay
from nvmelab.explore.setting import Setting
from nvmelab.host.driver import Controller
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend


def driver_on(device: str, *, hand: bool = True) -> Controller:
    """A started driver on our controller with the rules of that persona."""
    worker = HeldWorker()
    wakeups = PERSONAS[device].wakeups
    config = ControllerConfig(wakeups=wakeups, shadow_doorbells=not wakeups)
    disks: Sequence[Namespace] = [
        Namespace(nsid, RamBackend(1 << 16), f"d{nsid}") for nsid in (1, 2, 3)
    ]
    function = NvmeFunction(Device(config, disks, GuestMemory(), worker=worker))
    controller = Controller(InprocLink(function, size=1 << 20, storage=worker if hand else None))
    controller.start()
    return controller


def replay_of(device: str = "qemu-9.0", **more: object) -> Replay:
    setting = msgspec.convert({"entries": 4, "device": device, **more}, Setting)
    replay = explore(setting, Plan()).replay
    assert replay
    return replay


def test_a_sound_device_completes_everything() -> None:
    outcome = replay_on(driver_on("nvmelab"), replay_of())
    assert not outcome.hang and not outcome.error
    assert (outcome.forced, outcome.followed, outcome.skipped) == (0, 16, 0)


def test_an_eager_run_is_forced_on_every_device() -> None:
    replay = replay_of("qemu-9.0", eager=True)
    affected = replay_on(driver_on("qemu-9.0"), replay)
    assert affected.hang and (affected.forced, affected.parted) == (len(replay.labels), "")
    assert "1 outstanding (CID" in affected.rings
    sound = replay_on(driver_on("nvmelab"), replay)
    assert not sound.hang and "storage has" in sound.parted


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: replay_of("nvmelab", grain="fine", fault="skips-interrupt"), "coarse"),
        (lambda: replay_of("qemu-9.0", doorbells="apart"), "together"),
        (lambda: replay_of("nvmelab", fault="phase-stays"), "only hangs"),
    ],
)
def test_a_run_that_cannot_be_taken_on_a_target(make: Callable[[], Replay], said: str) -> None:
    with pytest.raises(NotForThis, match=said):
        replay_on(driver_on("nvmelab"), make())


def test_a_target_whose_storage_is_not_in_our_hand() -> None:
    with pytest.raises(NotForThis, match="no hand on its storage"):
        replay_on(driver_on("nvmelab", hand=False), replay_of())
