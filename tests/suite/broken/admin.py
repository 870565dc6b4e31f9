"""Faults of features, log pages and admin opcodes."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.features import Features
from nvmelab.device.queues import Request, SubmissionQueue
from nvmelab.device.transfer import pieces
from nvmelab.spec.admin import GetFeatures, GetLogPage, SetFeatures
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.features import Feature, Select
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.status import NvmeError, Status


class OtherFeatures(Controller):
    """A controller with features of the class `kind`."""

    kind: type[Features] = Features

    def clear(self) -> None:
        super().clear()
        self.features = self.kind(self)


class _NoVectors(Features):
    def get(self, command: GetFeatures) -> int:
        if command.fid == Feature.INTERRUPT_VECTOR_CONFIGURATION:
            raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, "")
        return super().get(command)


class LacksOneFeature(OtherFeatures):
    """Interrupt Vector Configuration is not there."""

    kind = _NoVectors


class _SavedIsCurrent(Features):
    def get(self, command: GetFeatures) -> int:
        if command.fid == Feature.ARBITRATION and command.sel == Select.SAVED:
            return super().get(command) ^ 1
        return super().get(command)


class InventsSavedValue(OtherFeatures):
    """The saved value of what cannot be saved is not the default."""

    kind = _SavedIsCurrent


class _OneThreshold(Features):
    def _selector(self, fid: int, nsid: int, cdw11: int) -> int:
        super()._selector(fid, nsid, cdw11)
        return 0


class OneThreshold(OtherFeatures):
    """The lower temperature threshold is stored where the upper one is."""

    kind = _OneThreshold


class _Forgets(Features):
    def set(self, command: SetFeatures) -> int:
        if command.fid == Feature.VOLATILE_WRITE_CACHE and not command.sv:
            return 0
        return super().set(command)


class ForgetsWriteCache(OtherFeatures):
    """Set Features of the write cache succeeds and does nothing."""

    kind = _Forgets


class _DefaultMoves(Features):
    def default(self, fid: int, selector: int) -> int:
        if fid == Feature.ASYNC_EVENT_CONFIGURATION:
            return self._values.get((fid, selector), 0)
        return super().default(fid, selector)


class DefaultMoves(OtherFeatures):
    """The default of a feature is what was set last."""

    kind = _DefaultMoves


class _SavesNothing(Features):
    def set(self, command: SetFeatures) -> int:
        words = SetFeatures(fid=command.fid, value=command.value, nsid=command.nsid)
        return super().set(words)


class IgnoresSave(OtherFeatures):
    """SV is ignored, where nothing can be saved."""

    kind = _SavesNothing


class _TakesAll(Features):
    def set(self, command: SetFeatures) -> int:
        try:
            return super().set(command)
        except NvmeError as error:
            if error.status != Status.INVALID_FIELD_IN_COMMAND:
                raise
            return 0


class TakesUnknownFeatures(OtherFeatures):
    """Set Features of a reserved identifier succeeds."""

    kind = _TakesAll


class _GivesWhatIsAsked(Features):
    def _set_number_of_queues(self, value: int) -> int:
        super()._set_number_of_queues(value)
        return min(value & 0xFFFF, 63) | min(value >> 16, 63) << 16


class GivesQueuesAgain(OtherFeatures):
    """Every Set Features gives another number of queues."""

    kind = _GivesWhatIsAsked


class _AnyTime(Features):
    def _set_number_of_queues(self, value: int) -> int:
        self.queues_created = False
        return super()._set_number_of_queues(value)


class GivesQueuesLate(OtherFeatures):
    """The number of queues can be set while there are queues."""

    kind = _AnyTime


class EditedLog(Controller):
    """Get Log Page goes through `before` and `after`."""

    def before(self, command: GetLogPage) -> GetLogPage:
        """The command to carry out instead."""
        return command

    def after(self, command: GetLogPage) -> None:
        """It was carried out."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if sq.id or request.opcode != AdminOpcode.GET_LOG_PAGE:
            super()._execute(sq)
            return
        command = GetLogPage.from_words(request.words)
        data = self.before(command).encode()
        words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 64, 4)]
        request.words = (request.words[0], *words[1:])
        super()._execute(sq)
        if not request.status:
            self.after(command)


class LacksSmart(Controller):
    """The SMART log page is not there."""

    def finish(self, request: Request, status: int = 0) -> None:
        log_page = request.opcode == AdminOpcode.GET_LOG_PAGE and not request.sq.id
        if log_page and GetLogPage.from_words(request.words).lid == LogPage.SMART:
            status = Status.INVALID_LOG_PAGE
        super().finish(request, status)


class NoActiveSlot(EditedLog):
    """No firmware slot is the active one."""

    def after(self, command: GetLogPage) -> None:
        if command.lid == LogPage.FIRMWARE_SLOT:
            pieces(self, command, 4, write=True)[0][0] = 0


class NoAbortInLog(EditedLog):
    """The effects log leaves Abort out."""

    def after(self, command: GetLogPage) -> None:
        if command.lid == LogPage.COMMANDS_AND_EFFECTS and command.numd == 1024:
            pieces(self, command, 4096, write=True)[0][4 * AdminOpcode.ABORT] = 0


class IgnoresOffset(EditedLog):
    """Every part of a log page is its beginning."""

    def before(self, command: GetLogPage) -> GetLogPage:
        return GetLogPage(
            lid=command.lid,
            numd=command.numd,
            nsid=command.nsid,
            prp1=command.prp1,
            prp2=command.prp2,
        )


class WritesWholePages(EditedLog):
    """512 bytes are written, however few were asked for."""

    def before(self, command: GetLogPage) -> GetLogPage:
        return GetLogPage(
            lid=command.lid,
            numd=max(command.numd, 128),
            lpo=command.lpo,
            nsid=command.nsid,
            prp1=command.prp1,
            prp2=command.prp2 or (command.prp1 // 4096 + 1) * 4096,
        )


class AnswersReservedLog(EditedLog):
    """Any log page that is not known is the SMART log."""

    def before(self, command: GetLogPage) -> GetLogPage:
        if command.lid <= LogPage.COMMANDS_AND_EFFECTS:
            return command
        return GetLogPage(
            lid=LogPage.SMART, numd=command.numd, nsid=command.nsid, prp1=command.prp1
        )


class OtherStatus(Controller):
    """An opcode that is not known is refused as a bad field."""

    def finish(self, request: Request, status: int = 0) -> None:
        if status & 0x7FF == Status.INVALID_COMMAND_OPCODE:
            status = Status.INVALID_FIELD_IN_COMMAND
        super().finish(request, status)


BROKEN: dict[str, list[type[Controller]]] = {
    "admin.features": [LacksOneFeature, InventsSavedValue],
    "admin.feature-values": [OneThreshold, ForgetsWriteCache, DefaultMoves, IgnoresSave],
    "admin.reserved-features": [TakesUnknownFeatures],
    "admin.number-of-queues": [GivesQueuesAgain, GivesQueuesLate],
    "admin.log-pages": [LacksSmart, NoActiveSlot, NoAbortInLog],
    "admin.log-pieces": [IgnoresOffset, WritesWholePages],
    "admin.reserved-log-pages": [AnswersReservedLog],
    "admin.opcode": [OtherStatus],
}
