"""What a driver may find out about a device. Each error is one line for the user."""

from __future__ import annotations

from nvmelab.spec.commands import Completion
from nvmelab.spec.status import Status


class DeviceError(Exception):
    """The device did something it must not. `ref` is where the specification says so."""

    def __init__(self, message: str, *, ref: str = "") -> None:
        super().__init__(message)
        self.ref = ref


class NotOffered(Exception):
    """The device does not have what was asked of the driver, and says so: nobody's fault."""


class Stuck(DeviceError):
    """The device came to rest although something is outstanding. The message says what was waited
    for, and has the state of every ring."""


class CommandFailed(DeviceError):
    """A command completed with a status that is not success."""

    def __init__(self, command: str, completion: Completion) -> None:
        self.status = Status(completion.status & 0x7FF)
        super().__init__(f"{command}: {self.status.label} ({int(self.status):#05x})")
        self.completion = completion
