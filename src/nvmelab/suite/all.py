"""Every check, in the order in which they run: the modules that declare them are imported here."""

from __future__ import annotations

import nvmelab.suite.admin
import nvmelab.suite.commands
import nvmelab.suite.data
import nvmelab.suite.deletion
import nvmelab.suite.doorbells
import nvmelab.suite.erase
import nvmelab.suite.events
import nvmelab.suite.identify
import nvmelab.suite.overcommit
import nvmelab.suite.pointers
import nvmelab.suite.queues
import nvmelab.suite.registers
import nvmelab.suite.reset
import nvmelab.suite.rings
import nvmelab.suite.shadow
import nvmelab.suite.shutdown
import nvmelab.suite.transfer  # noqa: F401
from nvmelab.suite.base import CHECKS as _DECLARED

GROUPS = (
    "registers",
    "reset",
    "identify",
    "admin",
    "queues",
    "rings",
    "commands",
    "doorbells",
    "overcommit",
    "transfer",
    "data",
    "shadow",
)
"""What later checks rely on comes first."""

CHECKS = {id: check for group in GROUPS for id, check in _DECLARED.items() if check.group == group}
assert len(CHECKS) == len(_DECLARED), "a check of an unknown group"
