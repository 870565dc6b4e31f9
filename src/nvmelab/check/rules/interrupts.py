"""Rules about interrupts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Values
from nvmelab.check.rule import Rule

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    "interrupts.mask-with-msix": Rule(
        "driver",
        "INTMS and INTMC are not used while MSI-X is",
        "Base 2.2, 3.1.4.3 (INTMS) and 3.1.4.4 (INTMC)",
        ("mask_with_msix", "msix"),
    ),
    "interrupts.disabled": Rule(
        "device",
        "a completion queue whose interrupts are disabled (IEN 0) raises none",
        "Base 2.2, 5.2.1 (IEN)",
        ("msix",),
    ),
    "interrupts.unasked": Rule(
        "device",
        "an interrupt is raised for entries that were posted",
        "NVMe over PCIe Transport 1.2, 3.4.1 (derived: an interrupt tells of entries)",
        ("cqe",),
        "note",
    ),
    "interrupts.raised": Rule(
        "device",
        "entries that are posted raise the interrupt of their queue in the end",
        "NVMe over PCIe Transport 1.2, 3.4.1 (derived: a host that asked for interrupts may rely "
        "on them)",
        ("cqe",),
        kind="eventually",
    ),
    "device.failed": Rule(
        "device",
        "CSTS.CFS stays 0 while the host does nothing wrong",
        "Base 2.2, 9.5 (controller fatal status)",
    ),
}


class Interrupts:
    """Looks at what is raised."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "mask_with_msix": self._mask_with_msix,
            "msix": self._msix,
        }

    def _mask_with_msix(self, at: int, _values: Values) -> None:
        text = "INTMS or INTMC is written under MSI-X"
        self._monitor.find("interrupts.mask-with-msix", text, at)

    def _msix(self, at: int, values: Values) -> None:
        monitor = self._monitor
        cqs = monitor.cqs.values()
        if not monitor.enabled or not all(cq.from_start for cq in cqs):
            return
        mine = [cq for cq in cqs if cq.vector == values[0]]
        if not mine:
            return  # the message of a queue that was deleted may still be under way
        if not any(cq.ien for cq in mine):
            text = f"vector {values[0]} is raised, and no queue that has it has interrupts"
            monitor.find("interrupts.disabled", text, at)
        elif monitor.exact and not any(cq.unsignalled for cq in mine):
            text = f"vector {values[0]} is raised, and nothing was posted since the last time"
            monitor.find("interrupts.unasked", text, at)
