"""`nvmelab`: the command group. One verb, one file."""

from __future__ import annotations

import click

from nvmelab import __version__
from nvmelab.cli.demo import demo
from nvmelab.cli.doctor import doctor
from nvmelab.cli.run import run
from nvmelab.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nvmelab")
def cli() -> None:
    """An NVMe controller that stock QEMU guests use as their disk, to find out why an NVMe queue
    hangs. This version serves and traces; it does not judge yet.

    \b
    nvmelab demo                                  see it work; needs nothing else
    nvmelab run -- qemu-system-x86_64 ...         your QEMU command line, on our controller
    nvmelab serve disk.img --socket nvme.sock     the controller alone, for any vfio-user client
    nvmelab doctor                                what is here, and what is missing
    """


for verb in (demo, run, serve, doctor):
    cli.add_command(verb)
