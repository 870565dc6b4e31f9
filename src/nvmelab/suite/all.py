"""Every check, in the order in which they run: the modules that declare them are imported here."""

from __future__ import annotations

import nvmelab.suite.rings  # noqa: F401
from nvmelab.suite.base import CHECKS

__all__ = ["CHECKS"]
