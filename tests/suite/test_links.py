"""The whole suite over vfio-user, in one thread with the server: no check needs another link."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.link.base import HostLink
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.client import VfioUserLink
from nvmelab.link.vfio_user.server import Server
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend
from nvmelab.suite.all import CHECKS
from nvmelab.suite.runner import Runner
from nvmelab.targets import DISK_BYTES, DISKS


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], HostLink]]:
    """A client of a server with our controller, whose storage is in our hands."""
    path = str(tmp_path / "nvme.sock")
    loop = Loop()
    worker = HeldWorker()
    namespaces = [
        Namespace(nsid, RamBackend(DISK_BYTES, name=name), "test")
        for nsid, name in enumerate(DISKS, 1)
    ]
    controller = Controller(
        ControllerConfig(serial="test"), namespaces, GuestMemory(), worker=worker
    )
    function = NvmeFunction(controller)
    server = Server(function, path, loop)
    loop.add_worker(function.run)

    ticks = itertools.count()

    def connect() -> HostLink:
        # Each look at the clock takes 2 ms: time is how often the server had its turn.
        clock = lambda: 0.002 * next(ticks)  # noqa: E731
        link = VfioUserLink(path, pump=lambda: loop.turn(0), clock=clock)
        link.storage = worker
        return link

    yield connect
    server.close()
    loop.close()


@pytest.mark.parametrize("check_id", CHECKS)
def test_check_passes_over_vfio_user(check_id: str, connect: Callable[[], HostLink]) -> None:
    (result,) = Runner(connect, seed=1).run([CHECKS[check_id]])
    assert (result.result, result.seen) == ("pass", "as expected")
