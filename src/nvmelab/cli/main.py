"""`nvmelab`: the command group. One verb, one file."""

from __future__ import annotations

import click

from nvmelab import __version__
from nvmelab.cli.demo import demo
from nvmelab.cli.doctor import doctor
from nvmelab.cli.explore import explore_verb
from nvmelab.cli.matrix import matrix_verb
from nvmelab.cli.replay import replay_verb
from nvmelab.cli.run import run
from nvmelab.cli.serve import serve
from nvmelab.cli.test import test


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nvmelab")
def cli() -> None:
    """Find out why an NVMe queue hangs: a controller that stock QEMU guests use as their disk, and
    a driver that drives other people's devices.

    \b
    nvmelab demo                                  see it work; needs nothing else
    nvmelab run -- qemu-system-x86_64 ...         your QEMU command line, on our controller
    nvmelab test qemu:qemu-system-x86_64          our driver and our checks on a device
    nvmelab matrix                                which devices forget a rung queue, at which sizes
    nvmelab explore overcommit --entries 4        every order of events of driver and device
    nvmelab replay hang-4.json                    a run that it has found, once more
    nvmelab serve disk.img --socket nvme.sock     the controller alone, for any vfio-user client
    nvmelab doctor                                what is here, and what is missing
    """


for verb in (demo, run, test, matrix_verb, explore_verb, replay_verb, serve, doctor):
    cli.add_command(verb)
