"""What a planted breach is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nvmelab.device.controller import Controller as Device
from nvmelab.host.driver import Controller as Driver
from nvmelab.pair import workload


class Breach(msgspec.Struct, frozen=True):
    """One rule, and a pair that breaks it."""

    name: str
    rule: str
    """The rule that it breaks."""
    party: str
    """The side that was changed: `driver`, `device`, or `both` where the one's fault shows only
    under the other's."""
    act: Callable[[Driver], None] = workload
    device: type[Device] = Device

    @property
    def text(self) -> str:
        """What is wrong, in words."""
        planted = self.device if self.party == "device" else self.act
        return (planted.__doc__ or "").strip()
