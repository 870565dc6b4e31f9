"""nvmelab says why an NVMe queue hangs, and whose fault it is.

As a library, it is an NVMe driver for people who test devices:

    import nvmelab

    with nvmelab.connect("qemu:qemu-system-x86_64") as nvme:
        print(nvme.identify().mn)
        qpair = nvme.create_qpair(entries=4, flow="sqhd")
        qpair.write(slba=0, data=b"x" * 4096).check()
        assert qpair.read(slba=0, nlb=8).data() == b"x" * 4096

Commands are declared in `nvmelab.spec.admin` and `nvmelab.spec.nvm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvmelab.host.buffers import Buffer
    from nvmelab.host.driver import Controller
    from nvmelab.host.errors import CommandFailed, DeviceError, NotOffered, Stuck
    from nvmelab.host.namespaces import Namespace
    from nvmelab.host.qpair import Qpair
    from nvmelab.host.queues import Pending
    from nvmelab.link.base import LinkError
    from nvmelab.targets import TargetError, connect

__version__ = "0.1.0"
__all__ = [
    "Buffer",
    "CommandFailed",
    "Controller",
    "DeviceError",
    "LinkError",
    "Namespace",
    "NotOffered",
    "Pending",
    "Qpair",
    "Stuck",
    "TargetError",
    "connect",
]

_HOMES = {
    "Buffer": "nvmelab.host.buffers",
    "CommandFailed": "nvmelab.host.errors",
    "Controller": "nvmelab.host.driver",
    "DeviceError": "nvmelab.host.errors",
    "LinkError": "nvmelab.link.base",
    "Namespace": "nvmelab.host.namespaces",
    "NotOffered": "nvmelab.host.errors",
    "Pending": "nvmelab.host.queues",
    "Qpair": "nvmelab.host.qpair",
    "Stuck": "nvmelab.host.errors",
    "TargetError": "nvmelab.targets",
    "connect": "nvmelab.targets",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A name of the library is imported when it is first used: the program needs few of them,
        and all of them take longer than many a verb."""
        if name not in _HOMES:
            raise AttributeError(f"module 'nvmelab' has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found
