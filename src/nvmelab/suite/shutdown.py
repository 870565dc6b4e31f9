"""Checks of shutdown notifications, and that data outlives resets and shutdowns."""

from __future__ import annotations

import msgspec

from nvmelab.host.driver import Controller
from nvmelab.host.namespaces import Namespace
from nvmelab.host.qpair import Qpair
from nvmelab.suite.base import Bench, check
from nvmelab.suite.reset import Watch, go_on, submit_held, waits_for_disks, works

SHUTDOWN = "Base 2.2, 3.6.1 and 3.1.4.6 (CSTS.SHST)"
SHST_AFTER_RESET = "a reset after a completed shutdown makes CSTS.SHST 0, and then RDY follows EN"


def _reset(nvme: Controller) -> None:
    """Controller Reset after a shutdown is complete. Memory stays as it is."""
    nvme.write_cc(msgspec.structs.replace(nvme.cc, en=0, shn=0))
    nvme.wait_csts("CSTS.SHST 0 and RDY 0 (reset after a shutdown)", rdy=0, shst=0)
    nvme.cqs.clear()
    nvme.sqs.clear()


def _shut_down(bench: Bench, *, abrupt: bool, tidy: bool) -> None:
    """Shutdown, reset and a new start, three times. `tidy` deletes the I/O queues before."""
    nvme = bench.nvme
    for _ in range(3):
        qpair = nvme.create_qpair(entries=min(4, nvme.cap.mqes))
        for slba in range(5):
            qpair.read(slba=slba).check()
        if tidy:
            nvme.delete_qpair(qpair)
        nvme.shutdown(abrupt=abrupt)
        _reset(nvme)
        go_on(nvme)
        works(bench)
        nvme.start()


_COMPLETES = "CSTS.SHST becomes 2 (complete); " + SHST_AFTER_RESET


@check("reset.shutdown-normal", ref=SHUTDOWN, expected=_COMPLETES)
def shutdown_normal(bench: Bench) -> None:
    """Normal shutdown as a host should do it: queues deleted, CC.SHN 1."""
    _shut_down(bench, abrupt=False, tidy=True)


@check("reset.shutdown-abrupt", ref=SHUTDOWN, expected=_COMPLETES)
def shutdown_abrupt(bench: Bench) -> None:
    """Abrupt shutdown: CC.SHN 2, with I/O queues still there."""
    _shut_down(bench, abrupt=True, tidy=False)


@check("reset.shutdown-in-flight", ref=SHUTDOWN, expected=_COMPLETES)
def shutdown_in_flight(bench: Bench) -> None:
    """Shutdown while the storage holds commands back, which are released meanwhile."""
    nvme, storage = bench.nvme, bench.storage()
    for abrupt in (False, True):
        try:
            qpairs, buffers = submit_held(bench, storage)
            cqs = [nvme.admin.cq, *(qpair.cq for qpair in qpairs)]
            if waits_for_disks(storage):
                storage.let_go()
            nvme.write_cc(msgspec.structs.replace(nvme.cc, shn=2 if abrupt else 1))
            while not bench.link.wait(lambda: nvme.csts.shst == 2) and storage.held():
                storage.release(bench.random.randrange(storage.held()))
            nvme.wait_csts("CSTS.SHST 2, with nothing held back by the storage any more", shst=2)
        finally:
            storage.let_go()
        _reset(nvme)
        watch = Watch(bench, cqs, buffers)
        go_on(nvme)
        works(bench)
        watch.check()
        nvme.start()


def _written(bench: Bench, space: Namespace, qpair: Qpair) -> dict[int, bytes]:
    """Blocks of data drawn from the seed, written here and there."""
    slbas = bench.random.sample(range(min(space.blocks, 1 << 16)), 6)
    data = {slba: bench.random.randbytes(space.block) for slba in slbas}
    for slba, block in data.items():
        space.write(qpair, slba, block).check()
    return data


@check(
    "reset.data-kept",
    ref="Base 2.2, 3.1.4.5 (CC.EN), 3.6 and 7.2",
    expected="what was written is there after a reset; what was flushed, after a shutdown too",
)
def data_kept(bench: Bench) -> None:
    """Data written before a Controller Reset, a normal and an abrupt shutdown, and read after."""
    nvme = bench.nvme
    active = nvme.active_namespaces()
    if not active:
        bench.skip("the controller has no namespace")
    space = nvme.namespace(active[0])
    for what in ("a controller reset", "a normal shutdown", "an abrupt shutdown"):
        qpair = nvme.create_qpair(entries=2)
        data = _written(bench, space, qpair)
        if what != "a controller reset":
            # A Controller Reset alone may cost nothing that was completed (3.1.4.5), flushed or
            # not.
            qpair.flush(space.nsid).check()
            nvme.shutdown(abrupt="abrupt" in what)
        nvme.start()
        qpair = nvme.create_qpair(entries=2)
        for slba, block in data.items():
            seen = space.read(qpair, slba).data()
            bench.expect(
                seen == block,
                f"block {slba} of namespace {space.nsid}, written before {what}, reads differently "
                f"after it: {seen[:8].hex()}..., not {block[:8].hex()}...",
            )
        nvme.start()
