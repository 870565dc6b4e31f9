"""Lost wake-ups of an over-committed queue."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nvmelab.corpus.personas import PERSONAS
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.memory import GuestMemory
from nvmelab.storage.worker import StorageWorker


class ForgetsRungQueue(Controller):
    """A queue whose request pool ran dry is looked at again only at its tail doorbell, or when a
    head doorbell finds the completion queue full: QEMU before the fix."""

    def __init__(
        self,
        config: ControllerConfig,
        namespaces: Sequence[Namespace],
        memory: GuestMemory,
        *,
        worker: StorageWorker | None = None,
    ) -> None:
        wakeups = PERSONAS["qemu-9.0"].wakeups
        config = msgspec.structs.replace(config, shadow_doorbells=False, wakeups=wakeups)
        super().__init__(config, namespaces, memory, worker=worker)


BROKEN: dict[str, list[type[Controller]]] = {
    "overcommit.silence": [ForgetsRungQueue],
    "overcommit.every-order": [ForgetsRungQueue],
}
