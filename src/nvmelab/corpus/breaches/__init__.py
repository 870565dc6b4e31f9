"""Planted breaches: for each rule, a driver or a device that breaks it, and nothing else.

A device breach is our controller with one step changed, under the sound workload. A driver breach
is what the driver does beside what it should, to a sound device. The judge must find the rule, and
name the side that was changed or nobody.
"""

from __future__ import annotations

from nvmelab.corpus.breaches import device, driver_commands, driver_queues, driver_registers
from nvmelab.corpus.breaches.breach import Breach

_ALL = [
    *driver_registers.BREACHES,
    *driver_queues.BREACHES,
    *driver_commands.BREACHES,
    *device.BREACHES,
]
BREACHES: dict[str, Breach] = {breach.name: breach for breach in _ALL}
assert len(BREACHES) == len(_ALL)
