"""Logs that make no sense, of which a judge must keep count all the same."""

from __future__ import annotations

import random

from tests.check.test_monitor import IRQ, START, fetch, finish, release, ring


def scrambled(seed: int, lines: int = 250) -> bytes:
    """A log in which much is missing, repeated, in the wrong order or of other queues."""
    chance = random.Random(seed)
    text = [
        *START.splitlines(keepends=True),
        "pci_nvme_mmio_doorbell_sq sqid 0 new_tail 3\n",
        fetch(3, 0).replace("opc 0x2", "opc 0x1").replace("io_cmd", "admin_cmd"),
        "pci_nvme_create_sq create submission queue, addr=0x9000, sqid=2, cqid=1, qsize=7, "
        "qflags=1\n",
        "pci_nvme_enqueue_req_completion cid 3 cqid 0 dw0 0x0 dw1 0x0 status 0x0\n",
    ]
    for _ in range(lines):
        slot, cid, sqid = chance.randrange(4), chance.randrange(6), chance.choice((1, 1, 1, 2, 5))
        text.append(
            chance.choice(
                (
                    *(ring(slot, sqid), ring(slot, sqid), fetch(cid, sqid), fetch(cid, sqid)),
                    *(finish(cid), finish(cid), IRQ, release(slot), "[  1.0] nvme0: timeout\n"),
                    "pci_nvme_irq_masked IRQ is masked\n",
                    "pci_nvme_aer cid 1\n",
                    fetch(1, 0).replace("io_cmd", "admin_cmd"),
                    f"pci_nvme_cqe cqid 1 slot {slot} dw0 0x0 dw1 0x0 sqhd {slot} sqid {sqid} "
                    f"cid {cid} phase {slot & 1} status 0x0\n" * (seed % 2),
                )
            )
        )
        if chance.randrange(80) == 0:
            text.append(
                chance.choice(("pci_nvme_mmio_stopped x\n", "pci_nvme_pci_reset x\n", START))
            )
    return "".join(text).encode()
