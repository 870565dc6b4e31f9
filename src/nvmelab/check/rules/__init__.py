"""The rules: what the specification says about what can be seen of a controller and its driver.

Each module has the rules of its group, and a class that looks at the events which can break them
(those of moving queues are found by the `monitor` itself, those of every step of a system that is
explored by `explore.watch`).
"""

from __future__ import annotations

from nvmelab.check.rule import Rule
from nvmelab.check.rules import commands, interrupts, order, queues, registers, reset, transfer
from nvmelab.trace.events import OURS
from nvmelab.trace.taken import TAKEN

RULES: dict[str, Rule] = {
    **registers.RULES,
    **reset.RULES,
    **queues.RULES,
    **order.RULES,
    **commands.RULES,
    **transfer.RULES,
    **interrupts.RULES,
}

GROUPS = (
    registers.Registers,
    reset.Reset,
    queues.Queues,
    order.Order,
    commands.Commands,
    transfer.Transfer,
    interrupts.Interrupts,
)

PROGRESS: dict[str, Rule] = {
    "device": Rule(
        "device",
        "a command that was rung is consumed and completed, whether or not the driver rings again",
        "Base 2.2, 3.3.1.2 (derived: submitted entries are consumed)",
        kind="eventually",
    ),
    "driver": Rule(
        "driver",
        "a completion that the driver was told of, or could see, is consumed",
        "Base 2.2, 3.3.1.2 (derived: posted entries are consumed)",
        kind="eventually",
    ),
    "platform": Rule(
        "platform",
        "doorbell writes and interrupts arrive",
        "NVMe over PCIe Transport 1.2, 3.1.2 (doorbells); PCI Local Bus 3.0, 6.8 (MSI-X) (derived)",
        kind="eventually",
    ),
}
"""What a hang breaks, by who has the ball."""

EXPLORED = frozenset(
    (
        *("sq.slot-in-use", "sq.tail", "sq.cid-in-use", "sq.fetched-early", "cq.head"),
        *("cq.taken-early", "cq.overrun", "cq.slot", "cq.phase", "cq.sqhd", "cq.unknown-command"),
        *("cq.status", "data.late", "device.failed"),
    )
)
"""Rules that the explorer checks in every step. Its driver does nothing that could break others."""

_COUNTED = ("sq.", "cq.", "queues.", "interrupts.", "reset.")
CONTINUITY = frozenset(
    (
        *(name for name in RULES if name.startswith(_COUNTED)),
        *("doorbell.repeated", "commands.event-told", "commands.events-limit"),
        *("commands.abort-answered", "device.failed"),
    )
)
"""Rules about what happened before: where lines are missing they accuse nobody."""

_IN_QEMU_LOGS = {taken.handler for event, taken in TAKEN.items() if event not in OURS}


def sources(name: str) -> list[str]:
    """Where a breach of that rule shows."""
    needs = RULES[name].needs
    shown = {
        "explore": name in EXPLORED,
        "QEMU's log": bool(_IN_QEMU_LOGS.intersection(needs)),
        "our device": bool(needs),
    }
    return [source for source, shows in shown.items() if shows]
