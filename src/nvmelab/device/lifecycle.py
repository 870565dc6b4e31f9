"""A controller's registers and its life: enabled, ready, reset, shut down, failed.

NVMe Base 2.2, sections 3.1.4 (properties), 3.5.1 (initialization), 3.6.1 (shutdown) and 3.7.2
(controller level reset). A write to CC drops or begins something at once; what CSTS says about it
follows in a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nvmelab.device.queues import CompletionQueue
from nvmelab.device.registers import RegisterFile
from nvmelab.limits import ABORTS_MAX, ASYNC_EVENT_REQUESTS_MAX
from nvmelab.spec.registers import REVISION_1_4, Aqa, Cap, Cc, Csts, Register

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

VERSION = REVISION_1_4
"""VS: revision 1.4, as QEMU's own device says."""
MPSMAX = 4
"""Largest CC.MPS: 64 KiB pages."""
READY_TIMEOUT = 15
"""CAP.TO, in units of 500 ms: a reset waits for a slow flush of the host's disk."""

_RDY, _CFS, _SHST = 1, 1 << 1, 3 << 2
_NSSRO = 1 << 4
"""A host may write 1 to it, which clears it."""
_CSTS_ALIVE = _RDY
"""RDY, and neither CFS nor any SHST."""


class LifeCycle:
    """The registers of one controller, and what follows from them."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.registers = RegisterFile()
        cap = Cap(
            mqes=controller.config.queue_entries, cqr=1, to=READY_TIMEOUT, css=1, mpsmax=MPSMAX
        )
        self.registers["vs"] = VERSION
        self.registers["cap"] = int.from_bytes(cap.encode(), "little")
        self.page_size = 4096
        """CC.MPS in bytes, as it was when the controller was enabled."""
        self.live = False
        """Commands may be fetched and completed: ready, no fatal status, no shutdown (Base 2.2,
        3.6), and the function may reach memory."""
        self.unsettled = False
        """CSTS does not say yet what CC asked for. This and `live` follow from the rest, in
        `_update`, because each turn asks for them."""
        self._bus_master = False
        self._resetting = False
        self._shutting_down = False

    def _update(self) -> None:
        csts = self.registers["csts"]
        self.live = self._bus_master and not self._resetting and csts == _CSTS_ALIVE
        self.unsettled = self._resetting or self._shutting_down or self._rdy_may_rise

    @property
    def _rdy_may_rise(self) -> bool:
        """Not while a shutdown is reported (Base 2.2, 3.1.4.6)."""
        csts = self.registers["csts"]
        return bool(self.registers["cc"] & 1 and not csts & (_RDY | _CFS | _SHST))

    @property
    def bus_master(self) -> bool:
        """The PCI function may read and write memory and send interrupts."""
        return self._bus_master

    @bus_master.setter
    def bus_master(self, enabled: bool) -> None:
        self._bus_master = enabled
        self._update()

    @property
    def cc(self) -> Cc:
        return Cc.from_words((self.registers["cc"],))

    @property
    def csts(self) -> Csts:
        return Csts.from_words((self.registers["csts"],))

    def _set_csts(self, **changes: int) -> None:
        before = self.registers["csts"]
        csts = msgspec.structs.replace(self.csts, **changes)
        value = self.registers["csts"] = int.from_bytes(csts.encode(), "little")
        self._update()
        if self._controller.trace and value != before:
            self._controller.trace("csts", value)

    def write(self, offset: int, size: int, value: int) -> None:
        """The host writes `size` bytes of the properties."""
        trace = self._controller.trace
        if trace:
            if offset % 4:
                trace("ub_mmiowr_misaligned32", offset)
            if size < 4:
                trace("ub_mmiowr_toosmall", offset, size)
        touched = self.registers.touched(offset, size, value)
        if not touched and trace:
            trace("ub_mmiowr_invalid", offset, value)
        for register, brought, mask in touched:
            self._register_written(register, brought, mask)

    def _register_written(self, register: Register, value: int, mask: int) -> None:
        registers, trace = self.registers, self._controller.trace
        name = register.name
        old, new = registers[name], registers.merged(register, value, mask)
        if name == "cc":
            registers[name] = new
            self._cc_written(Cc.from_words((old,)), Cc.from_words((new,)))
        elif name in ("aqa", "asq", "acq"):
            # These may be changed only while the controller is disabled (Base 2.2, 3.1.4.8 to .10).
            if not self.cc.en:
                registers[name] = new
            self._trace_admin_register(name, mask)
        elif name in ("intms", "intmc"):
            both = registers["intms"]
            both = both | value if name == "intms" else both & ~value
            registers["intms"] = registers["intmc"] = both
            if trace:
                trace(f"mmio_intm_{'set' if name == 'intms' else 'clr'}", value, both)
                if self._controller.msix_enabled:
                    trace("ub_mmiowr_intmask_with_msix")
        elif trace:
            if name == "csts":
                if value & mask & ~_NSSRO:
                    trace("ub_mmiowr_ro_csts")
            else:
                trace("ub_mmiowr_invalid", register.offset, value)

    def _trace_admin_register(self, name: str, mask: int) -> None:
        trace = self._controller.trace
        if not trace:
            return
        value = self.registers[name]
        if name == "aqa":
            trace("mmio_aqattr", value)
        elif mask >> 32 and not mask & 0xFFFF_FFFF:
            trace(f"mmio_{name}addr_hi", value >> 32, value)
        else:
            trace(f"mmio_{name}addr", value)

    def _cc_written(self, old: Cc, new: Cc) -> None:
        trace = self._controller.trace
        if trace:
            trace("mmio_cfg", self.registers["cc"])
        if old.en and not new.en:
            # A Controller Reset: everything is dropped now; RDY follows in a step of its own. AQA,
            # ASQ and ACQ stay.
            self._controller.clear()
            self.registers["intms"] = self.registers["intmc"] = 0
            self._resetting = True
            self._shutting_down = False
            self._set_csts(shst=0, cfs=0)
            if trace:
                trace("mmio_stopped")
        if new.shn and not old.shn:
            self._shutting_down = True
            self._set_csts(shst=1)
            if trace:
                trace("mmio_shutdown_set")
        elif old.shn and not new.shn:
            self._shutting_down = False
            self._set_csts(shst=0)
            if trace:
                trace("mmio_shutdown_cleared")
        self._update()

    def reset(self) -> None:
        """PCI reset or function level reset: as at power-on."""
        controller = self._controller
        if controller.trace:
            controller.trace("pci_reset")
        controller.clear()
        for name in ("cc", "csts", "aqa", "asq", "acq", "intms", "intmc"):
            self.registers[name] = 0
        self._shutting_down = False
        self._resetting = controller.storage_busy
        self._update()
        if controller.doorbells:
            controller.doorbells.zero_all()

    def fatal(self) -> None:
        """Controller Fatal Status: nothing is done until the host resets the controller
        (Base 2.2, 9.5)."""
        if self._controller.trace:
            self._controller.trace("err_cfs")
        self._set_csts(cfs=1)

    def revive(self) -> None:
        """Take a fatal status back, as nothing in a real device can: for a search that goes on
        elsewhere."""
        self._set_csts(cfs=0)

    # Steps.

    @property
    def rdy_lags(self) -> bool:
        """CSTS.RDY does not say yet what CC.EN asked for."""
        if self._resetting:
            # What the storage still does must not outlive the reset.
            return not self._controller.storage_busy
        return self._rdy_may_rise

    @property
    def shutdown_lags(self) -> bool:
        """CC.SHN asked for a shutdown, and CSTS.SHST does not say yet that it is complete."""
        return self._shutting_down and not self._controller.storage_busy

    def rdy_step(self) -> None:
        """CSTS.RDY follows CC.EN."""
        controller = self._controller
        if self._resetting:
            self._resetting = False
            if controller.doorbells:
                controller.doorbells.zero_all()
            self._set_csts(rdy=0)
            return
        failure = self._start()
        if failure:
            if controller.trace:
                controller.trace(*failure)
                controller.trace("err_startfail")
            self.fatal()
        else:
            if controller.trace:
                controller.trace("mmio_start_success")
                controller.trace("offers", *self._offers())
            self._set_csts(rdy=1)

    def _offers(self) -> tuple[int, ...]:
        """The values of the event `offers`."""
        config = self._controller.config
        vectors = config.vectors if self._controller.msix_enabled else 1
        mdts = 4096 << config.mdts if config.mdts else 0
        limits = (mdts, ASYNC_EVENT_REQUESTS_MAX, ABORTS_MAX)
        return (config.queue_entries, config.io_queues, vectors, *limits)

    def _start(self) -> tuple[str, *tuple[int, ...]] | None:
        """Bring queue 0 into being; or the event that says what impossible thing was set up."""
        cc = self.cc
        page_size = 1 << 12 + cc.mps
        aqa = Aqa.from_words((self.registers["aqa"],))
        asq, acq = self.registers["asq"], self.registers["acq"]
        if cc.mps > MPSMAX:
            return "err_startfail_page_too_large", 12 + cc.mps, 12 + MPSMAX
        if cc.css:
            return "err_startfail_css", cc.css
        if asq % page_size:
            return "err_startfail_asq_misaligned", asq
        if acq % page_size:
            return "err_startfail_acq_misaligned", acq
        if aqa.asqs < 2:
            return ("err_startfail_asqent_sz_zero",)
        if aqa.acqs < 2:
            return ("err_startfail_acqent_sz_zero",)
        self.page_size = page_size
        admin_cq = CompletionQueue(0, acq, aqa.acqs, vector=0, ien=True)
        self._controller.add_cq(admin_cq)
        self._controller.add_sq(0, asq, aqa.asqs, admin_cq)
        return None

    def shutdown_step(self) -> None:
        """Everything becomes durable; then the shutdown is complete."""
        self._shutting_down = False
        self._update()
        self._controller.flush_all(self.shutdown_complete)

    def shutdown_complete(self, error: OSError | None) -> None:
        """The flush is done. A shutdown that was taken back meanwhile stays taken back."""
        if self.csts.shst != 1 or self._shutting_down:
            return
        if error:
            self.fatal()
        else:
            self._set_csts(shst=2)
