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
