"""The rules: what the specification says about what can be seen of a queue pair and its controller.

`always` rules are about what must never happen; they are broken by an event. `eventually` rules are
about a run that has come to rest: somebody has to do something and does not.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Party = Literal["driver", "device", "platform"]


class Rule(msgspec.Struct, frozen=True):
    """`party` is who breaks it."""

    party: Party
    text: str
    ref: str
    kind: Literal["always", "eventually"] = "always"


RULES: dict[str, Rule] = {
    "sq.slot-in-use": Rule(
        "driver",
        "an entry is written only into a free slot of the submission queue, the next one",
        "Base 2.2, 3.3.1.2 (queue usage) and 3.3.1.5 (full)",
    ),
    "sq.tail": Rule(
        "driver",
        "the tail doorbell tells of entries that were written, and its value is a slot",
        "Base 2.2, 3.3.1.2 (queue usage)",
    ),
    "sq.cid-in-use": Rule(
        "driver",
        "no two outstanding commands of a queue have the same CID",
        "Base 2.2, 4.1.1 (CID)",
    ),
    "cq.head": Rule(
        "driver",
        "the head doorbell releases entries that were posted, and its value is a slot",
        "Base 2.2, 3.3.1.2 (queue usage)",
    ),
    "cq.taken-early": Rule(
        "driver",
        "only entries that were posted are consumed",
        "Base 2.2, 4.2.4 (phase tag)",
    ),
    "sq.fetched-early": Rule(
        "device",
        "only entries that the tail doorbell has told of are fetched, each once and in order",
        "Base 2.2, 3.3.1.2 (queue usage)",
    ),
    "cq.overrun": Rule(
        "device",
        "nothing is posted while the completion queue has no free slot",
        "Base 2.2, 3.3.1.2.1 (completion queue flow control)",
    ),
    "cq.slot": Rule(
        "device",
        "a completion is posted to the next slot of the completion queue",
        "Base 2.2, 3.3.1.2 (queue usage)",
    ),
    "cq.phase": Rule(
        "device",
        "the phase tag of an entry is the inverse of what the slot had before",
        "Base 2.2, 4.2.4 (phase tag)",
    ),
    "cq.sqhd": Rule(
        "device",
        "SQHD is the head of the submission queue when the entry is created: fetched entries only",
        "Base 2.2, 4.2.1 (SQHD)",
    ),
    "cq.unknown-command": Rule(
        "device",
        "each fetched command is completed once, with its own SQID and CID",
        "Base 2.2, 4.2.1 (SQID, CID)",
    ),
    "cq.status": Rule(
        "device",
        "a command that is as it should be succeeds",
        "Base 2.2, 4.2.3 (status)",
    ),
    "data.late": Rule(
        "device",
        "the data of a Read is in host memory when its completion is posted",
        "NVM Command Set 1.2, 3.3.4 (derived: completion says that the data was transferred)",
    ),
    "device.failed": Rule(
        "device",
        "CSTS.CFS stays 0 while the host does nothing wrong",
        "Base 2.2, 9.5 (controller fatal status)",
    ),
    "doorbell.queue": Rule(
        "driver",
        "a doorbell is written only for a queue that exists",
        "Base 2.2, 5.1.2.1 (Invalid Doorbell Register)",
    ),
    "doorbell.value": Rule(
        "driver",
        "the value of a doorbell is a slot of its queue",
        "Base 2.2, 5.1.2.1 (Invalid Doorbell Write Value)",
    ),
    "doorbell.aligned": Rule(
        "driver",
        "a doorbell is written as the 4 bytes that it is",
        "NVMe over PCIe Transport 1.2, 3.1.2 (doorbells)",
    ),
    "registers.admin-queue-enabled": Rule(
        "driver",
        "AQA, ASQ and ACQ are written only while CC.EN is 0",
        "Base 2.2, 3.1.4.5 (CC.EN)",
    ),
    "registers.admin-queue-size": Rule(
        "driver",
        "the controller is not enabled with an admin queue of one entry: AQA.ASQS, ACQS are not 0",
        "Base 2.2, 3.1.4.8 (AQA)",
    ),
    "registers.admin-queue-base": Rule(
        "driver",
        "ASQ and ACQ are aligned to the memory page that CC.MPS says",
        "Base 2.2, 3.1.4.9 (ASQ) and 3.1.4.10 (ACQ)",
    ),
    "registers.page-size": Rule(
        "driver",
        "CC.MPS lies between CAP.MPSMIN and CAP.MPSMAX",
        "Base 2.2, 3.1.4.1 (CAP)",
    ),
    "interrupts.mask-with-msix": Rule(
        "driver",
        "INTMS and INTMC are not used while MSI-X is",
        "Base 2.2, 3.1.4.3 (INTMS) and 3.1.4.4 (INTMC)",
    ),
    "transfer.prp-offset": Rule(
        "driver",
        "a PRP entry that is not the first one of its command has no offset in its page",
        "Base 2.2, 4.3.1 (PRP entry, PBAO)",
    ),
}
PROGRESS: dict[str, Rule] = {
    "device": Rule(
        "device",
        "a command that was rung is consumed and completed, whether or not the driver rings again",
        "Base 2.2, 3.3.1.2 (derived: submitted entries are consumed)",
        "eventually",
    ),
    "driver": Rule(
        "driver",
        "a completion that the driver was told of, or could see, is consumed",
        "Base 2.2, 3.3.1.2 (derived: posted entries are consumed)",
        "eventually",
    ),
    "platform": Rule(
        "platform",
        "doorbell writes and interrupts arrive",
        "NVMe over PCIe Transport 1.2, 3.1.2 (doorbells); PCI Local Bus 3.0, 6.8 (MSI-X) (derived)",
        "eventually",
    ),
}
"""What a hang breaks, by who has the ball."""

SEEN_IN_LOGS = frozenset(
    name for name in RULES if name.split(".")[0] not in ("sq", "cq", "data", "device")
) | {"sq.fetched-early", "sq.cid-in-use", "sq.tail", "cq.head", "cq.unknown-command"}
"""Rules that the events of a log, or of `run --check`, can show broken. The explorer sees those of
queues and data, and no others: its driver does nothing else."""
SEEN_BY_EXPLORER = frozenset(
    name for name in RULES if name.split(".")[0] in ("sq", "cq", "data", "device")
)
