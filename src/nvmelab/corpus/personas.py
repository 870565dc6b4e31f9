"""Devices by the way they look after their queues: each is data for the one controller.

The `qemu-*` ones are QEMU's nvme device at a release, as far as its requests and wake-ups go: a
pool of as many requests as the queue has entries, held from the fetch of a command to the posting
of its completion; a doorbell only schedules. Sources: QEMU issue 2388; commit 9529aa6bb4d1,
"hw/nvme: fix handling of over-committed queues"; and the first patch of 25 October 2024, which
was never merged.
"""

from __future__ import annotations

import msgspec

from nvmelab.device.wakeups import WakeupRules


class Persona(msgspec.Struct, frozen=True):
    """`wakeups` None is our own controller, which remembers no wake-up."""

    name: str
    text: str
    wakeups: WakeupRules | None


_QEMU_9_0 = WakeupRules(full_cq_head_wakes_sqs=True)
_replace = msgspec.structs.replace

PERSONAS = {
    persona.name: persona
    for persona in (
        Persona("nvmelab", "our controller: what it could do follows from its state", None),
        Persona(
            "qemu-9.0", "QEMU before the fix of issue 2388; bottom halves in any order", _QEMU_9_0
        ),
        Persona(
            "qemu-9.0-lifo",
            "QEMU 7.2 to 9.1; bottom halves of a main-loop pass run last in, first out",
            _replace(_QEMU_9_0, order="lifo"),
        ),
        Persona(
            "qemu-5.2",
            "QEMU 5.2 and 6.2; timers run first in, first out, and re-arming moves to the end",
            _replace(_QEMU_9_0, order="fifo"),
        ),
        Persona(
            "qemu-9.0+1",
            "QEMU 9.0 with one more request than entries: the reporter's mitigation",
            _replace(_QEMU_9_0, extra_requests=1),
        ),
        Persona(
            "qemu-9.0+2",
            "QEMU 9.0 with two more requests than entries",
            _replace(_QEMU_9_0, extra_requests=2),
        ),
        Persona(
            "qemu-fix-v1",
            "the first patch: posting wakes the submission queue, a full CQ's doorbell nobody",
            WakeupRules(full_cq_head_wakes_cq=False, post_into_empty_pool_wakes_sq=True),
        ),
        Persona(
            "qemu-9.1.2",
            "the fix: posting wakes the submission queue, a full CQ's doorbell its CQ",
            WakeupRules(post_into_empty_pool_wakes_sq=True),
        ),
    )
}
