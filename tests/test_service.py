"""A service, its two sockets, and what its control socket says. The loop is turned by hand."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import Verdict
from nvmelab.link.control import REQUEST
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.server import ServerError
from nvmelab.service import Disk, Service
from nvmelab.snapshot import Snapshot
from nvmelab.trace.capture import CaptureFile, CaptureReader
from tests.link.vfio_user.conftest import Peer
from tests.trace.test_capture import SERVED


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def image(tmp_path: Path) -> str:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    return str(image)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "nvme.sock")


def state_of(path: str, loop: Loop) -> Snapshot:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{path}.ctl")
        peer.send(REQUEST)
        loop.turn(0)
        loop.turn(0)
        return msgspec.json.decode(peer.recv(1 << 17), type=Snapshot)


def test_the_state_is_on_the_control_socket_beside_the_guests(
    image: str, path: str, loop: Loop
) -> None:
    service = Service(Disk(image, persona="qemu-9.0"), path, loop)
    state = state_of(path, loop)
    assert (state.image, state.serial, state.device) == (image, "nvmelab", "qemu-9.0")
    assert not state.guest and not state.controller.enabled
    assert (state.sqs, state.cqs, state.check) == ([], [], None)
    service.close()
    assert not os.path.exists(path) and not os.path.exists(f"{path}.ctl")


def test_it_says_whether_a_guest_is_there_and_the_verdict_so_far(
    image: str, path: str, loop: Loop
) -> None:
    service = Service(Disk(image), path, loop, check=LiveMonitor())
    guest = Peer(path, loop).negotiate()
    service.function.bar_write(0, 0x1000 + 8 * 7, 4, 1)  # a doorbell of no queue
    state = state_of(path, loop)
    assert state.guest and state.check and state.check.verdict == "driver"
    service.close()
    guest.sock.close()


def test_the_verdict_on_a_stopped_guest_is_why_it_was_stopped(
    image: str, path: str, loop: Loop
) -> None:
    service = Service(Disk(image), path, loop, check=LiveMonitor())
    guest = Peer(path, loop).negotiate()
    told, stopped = list[Verdict](), False
    service.tell_of_trouble(told.append, lambda: stopped)
    service.function.bar_write(0, 0x1000 + 8 * 7, 4, 1)
    loop.turn(0)
    (first,) = told
    stopped = True
    service.function.bar_write(0, 0x1000 + 8 * 9, 4, 1)
    state = msgspec.json.decode(service.state(), type=Snapshot)
    assert state.stopped and state.check and state.check.findings == len(first.findings)
    stopped = False  # somebody has let it go on
    assert b'"stopped":false' in service.state() and len(told) == 1
    guest.sock.close()
    loop.turn(0)
    assert service.verdict and len(service.verdict.findings) == 2
    service.close()


def test_the_judge_counts_events_as_the_capture_does(
    image: str, path: str, loop: Loop, tmp_path: Path
) -> None:
    capture = CaptureFile(str(tmp_path / "run.capture"), SERVED)
    live = LiveMonitor()
    service = Service(Disk(image), path, loop, check=live, capture=capture)
    service.function.bar_read(0, 0, 4)  # an event that the judge has no use for
    service.function.bar_write(0, 0x1000 + 8 * 7, 4, 1)
    service.close()
    (finding,) = live.monitor.findings
    events = CaptureReader([(tmp_path / "run.capture").read_bytes()])
    names = {number: name for number, _ns, name, _values in events}
    assert [names[number] for number in finding.evidence] == ["ub_db_wr_invalid_sq"]


def test_a_name_that_is_no_unicode_is_served(tmp_path: Path, path: str, loop: Loop) -> None:
    image = os.fsencode(tmp_path) + b"/disk\xff.img"
    Path(os.fsdecode(image)).write_bytes(bytes(1 << 20))
    service = Service(Disk(os.fsdecode(image)), path, loop)
    assert state_of(path, loop).image.endswith("/disk?.img")
    service.close()


def test_where_there_is_no_place_for_a_control_socket_nothing_is_left(
    image: str, path: str, loop: Loop
) -> None:
    Path(f"{path}.ctl").write_text("precious")
    with pytest.raises(ServerError, match=r"nvme\.sock\.ctl exists and is no socket"):
        Service(Disk(image), path, loop)
    assert not os.path.exists(path) and Path(f"{path}.ctl").read_text() == "precious"
    Path(f"{path}.ctl").unlink()
    Service(Disk(image), path, loop).close()  # the image is free again
