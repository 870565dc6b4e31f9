"""`nvmelab demo`: our driver on our controller, in one process."""

from __future__ import annotations

import json

import click

from nvmelab.cli.options import Fail
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as HostController
from nvmelab.host.errors import DeviceError
from nvmelab.host.workload import Workload
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.report.terminal import size_text
from nvmelab.storage.ram import RamBackend

_DISK = 64 << 20
_QUEUE_PAIRS = 2


@click.command(short_help="See it work: no QEMU, no root.")
@click.option(
    "--queue-entries",
    "entries",
    type=click.IntRange(2, 2048),
    default=4,
    show_default=True,
    help="Size of the I/O queues.",
)
@click.option(
    "--writes",
    type=click.IntRange(1, 1_000_000),
    default=5000,
    show_default=True,
    help="Number of 4 KiB writes.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Chooses places and data; one seed gives one result.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def demo(entries: int, writes: int, seed: int, as_json: bool) -> None:
    """Our NVMe driver writes to our NVMe controller through tiny queues, reads everything back and
    compares.

    Queues of a few entries are where QEMU's device once forgot commands (QEMU issue 2388).

    \b
    nvmelab demo
    nvmelab demo --queue-entries 2 --seed 7
    """
    config = ControllerConfig(serial="demo", queue_entries=entries)
    controller = Controller(config, [Namespace(1, RamBackend(_DISK), "demo")], GuestMemory())
    try:
        link = InprocLink(NvmeFunction(controller))
        driver = HostController(link)
        driver.start(io_queues=_QUEUE_PAIRS)
        identity, namespace = driver.identify(), driver.namespace(1)
        qpairs = [
            driver.create_qpair(entries=entries, interrupts=True) for _ in range(_QUEUE_PAIRS)
        ]
        report = Workload(driver, qpairs, writes=writes, seed=seed).run()
        for qpair in qpairs:
            driver.delete_qpair(qpair)
        driver.shutdown()
        interrupts = controller.statistics.interrupts
    except DeviceError as error:
        raise Fail(f"the demo failed, which is a bug of nvmelab: {error}") from None
    if as_json:
        result = {
            "entries": entries,
            "seed": seed,
            "queue_pairs": _QUEUE_PAIRS,
            "commands": report.commands,
            "bytes_written": report.written,
            "bytes_verified": report.verified,
            "most_outstanding": report.most_outstanding,
            "interrupts": interrupts,
        }
        click.echo(json.dumps(result))
        return
    click.echo(
        f"device   {identity.mn}, {size_text(namespace.blocks * namespace.block)} in memory, "
        f"I/O queues of at most {driver.cap.mqes} entries (CAP.MQES {driver.cap.mqes - 1})\n"
        f"driver   {_QUEUE_PAIRS} queue pairs of {entries} entries, "
        f"up to {report.most_outstanding} commands outstanding\n"
        f"work     {report.commands:,} commands, {size_text(report.written)} written at random "
        f"places, flushed       seed {seed}\n"
        f"verified {size_text(report.verified)} read back: every byte is what was written last\n"
        f"device   {interrupts:,} interrupts, shut down, "
        "no command left behind\n"
        "\n"
        "Next: nvmelab run -- qemu-system-x86_64 ...   a guest on this controller\n"
        "      nvmelab doctor                          what this machine has for it"
    )
