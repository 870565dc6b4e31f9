"""Controllers with one planted fault each, by the check that must find it.

Each module has the variants for the checks of one module of the suite. A variant is our controller
with a step changed, not a flag that a check could know.
"""

from __future__ import annotations

from nvmelab.device.controller import Controller
from tests.suite.broken import (
    admin,
    commands,
    data,
    doorbells,
    events,
    identify,
    overcommit,
    queues,
    registers,
    reset,
    rings,
    shadow,
    shutdown,
    transfer,
)

BROKEN: dict[str, list[type[Controller]]] = {
    **registers.BROKEN,
    **reset.BROKEN,
    **shutdown.BROKEN,
    **identify.BROKEN,
    **admin.BROKEN,
    **events.BROKEN,
    **doorbells.BROKEN,
    **rings.BROKEN,
    **overcommit.BROKEN,
    **queues.BROKEN,
    **commands.BROKEN,
    **shadow.BROKEN,
    **transfer.BROKEN,
    **data.BROKEN,
}
