"""A pytest plugin: the fixture `nvme` is a started driver on whatever device one asks for.

    def test_wraps(nvme):
        qpair = nvme.create_qpair(entries=4, flow="sqhd")
        done = [qpair.read(nsid=1, slba=n * 8, nlb=8) for n in range(100)]
        assert all(c.wait().ok for c in done)

    $ pytest --nvme-target qemu:/usr/bin/qemu-system-x86_64
    $ pytest --nvme-target qemu:qemu-system-x86_64 --nvme-qemu '-device nvme,serial=x,drive=d0'

One link serves all tests; each gets a controller that was just reset. After a test that leaves a
device behind that cannot be reset, the next one gets a link of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from nvmelab.host.driver import Controller
from nvmelab.host.errors import DeviceError
from nvmelab.link.base import HostLink, LinkError
from nvmelab.targets import Target, TargetError, open_target, parse_target


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nvmelab", "NVMe devices")
    group.addoption(
        "--nvme-target",
        default="inproc",
        metavar="TARGET",
        help="what the fixture `nvme` drives: inproc, qemu:PROGRAM, qemu-vfio-user:PROGRAM, "
        "vfio-user:SOCKET or qtest:SOCKET (default: inproc)",
    )
    group.addoption(
        "--nvme-qemu",
        default="",
        metavar="WORDS",
        help="words for QEMU's command line, such as '-device nvme,serial=x,drive=d0,mqes=3'",
    )


class _Links:
    """The one link, opened when it is needed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._link: HostLink | None = None

    def get(self) -> HostLink:
        self._link = self._link or open_target(self._target)
        return self._link

    def drop(self) -> None:
        if self._link:
            link, self._link = self._link, None
            link.close()


def pytest_configure(config: pytest.Config) -> None:
    """Say what is wrong with the options before anything runs."""
    _target(config)


def pytest_report_header(config: pytest.Config) -> str:
    return f"nvme target: {config.getoption('--nvme-target')}"


def _target(config: pytest.Config) -> Target:
    try:
        words = shlex.split(config.getoption("--nvme-qemu"))
        return parse_target(config.getoption("--nvme-target"), words)
    except (TargetError, ValueError) as error:
        raise pytest.UsageError(f"--nvme-target: {error}") from None


@pytest.fixture(scope="session")
def nvme_links(request: pytest.FixtureRequest) -> Iterator[_Links]:
    """The link to the target of --nvme-target."""
    links = _Links(_target(request.config))
    yield links
    links.drop()


@pytest.fixture
def nvme(nvme_links: _Links) -> Iterator[Controller]:
    """A started `nvmelab.Controller` on the target of --nvme-target."""
    try:
        controller = Controller(nvme_links.get())
        controller.start()
    except (LinkError, DeviceError) as error:
        nvme_links.drop()
        problem: str | None = str(error)
    else:
        problem = None
    if problem:
        pytest.fail(problem, pytrace=False)
    yield controller
    try:
        _let_go(controller)
    except (LinkError, DeviceError):
        nvme_links.drop()


def _let_go(controller: Controller) -> None:
    """Nothing is held back any more, and the device takes a reset."""
    storage = controller.link.storage
    if storage:
        storage.let_go()
    controller.disable()
