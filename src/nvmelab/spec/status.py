"""Status values of completions: Status Code Type in bits 10:8, Status Code in bits 7:0.

NVMe Base 2.2, section 4.2.3 and its subsections; NVM Command Set 1.2 for those marked NVM.
"""

from __future__ import annotations

from nvmelab.spec.layout import OpenEnum


class Status(OpenEnum):
    """SCT << 8 | SC."""

    # Generic command status, SCT 0 (Base 2.2, 4.2.3.1).
    SUCCESS = 0x000
    INVALID_COMMAND_OPCODE = 0x001
    INVALID_FIELD_IN_COMMAND = 0x002
    COMMAND_ID_CONFLICT = 0x003
    DATA_TRANSFER_ERROR = 0x004
    INTERNAL_ERROR = 0x006
    COMMAND_ABORT_REQUESTED = 0x007
    ABORTED_SQ_DELETION = 0x008
    INVALID_NAMESPACE_OR_FORMAT = 0x00B
    COMMAND_SEQUENCE_ERROR = 0x00C
    PRP_OFFSET_INVALID = 0x013
    NAMESPACE_IS_WRITE_PROTECTED = 0x020
    LBA_OUT_OF_RANGE = 0x080  # NVM
    CAPACITY_EXCEEDED = 0x081  # NVM
    # Command specific status, SCT 1 (Base 2.2, 4.2.3.2).
    COMPLETION_QUEUE_INVALID = 0x100
    INVALID_QUEUE_IDENTIFIER = 0x101
    INVALID_QUEUE_SIZE = 0x102
    ABORT_COMMAND_LIMIT_EXCEEDED = 0x103
    ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED = 0x105
    INVALID_INTERRUPT_VECTOR = 0x108
    INVALID_LOG_PAGE = 0x109
    INVALID_QUEUE_DELETION = 0x10C
    FEATURE_IDENTIFIER_NOT_SAVEABLE = 0x10D
    FEATURE_NOT_CHANGEABLE = 0x10E
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10F
    # Media and data integrity errors, SCT 2 (Base 2.2, 4.2.3.3).
    WRITE_FAULT = 0x280
    UNRECOVERED_READ_ERROR = 0x281


DNR = 1 << 14
"""Do Not Retry, in the status field without its phase bit (Base 2.2, 4.2.3)."""


class NvmeError(Exception):
    """A command cannot be carried out: the completion's status, and why in words.

    Raised by a command's handler; the dispatcher turns it into a completion. `dnr` says that the
    same command would fail again.
    """

    def __init__(self, status: Status, cause: str, *, dnr: bool = True) -> None:
        super().__init__(f"{status.label}: {cause}")
        self.status = status
        self.cause = cause
        self.field = int(status) | (DNR if dnr else 0)
