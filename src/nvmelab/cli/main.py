"""`nvmelab`: the command group. One verb, one file."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from nvmelab import __version__

_VERBS = {
    "demo": ("demo", "demo"),
    "run": ("run", "run"),
    "test": ("test", "test"),
    "matrix": ("matrix", "matrix_verb"),
    "diagnose": ("diagnose", "diagnose"),
    "export": ("export", "export"),
    "rules": ("rules", "rules"),
    "explore": ("explore", "explore_verb"),
    "replay": ("replay", "replay_verb"),
    "serve": ("serve", "serve"),
    "top": ("top", "top"),
    "doctor": ("doctor", "doctor"),
}
"""The module of each verb, and the name of its command there."""


class _Verbs(click.Group):
    """Imports a verb when it is asked for: to import all of them takes 90 ms."""

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C is no result: click would end with 1, which says that something was found."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("nvmelab: interrupted", err=True)
            ctx.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, name = _VERBS[cmd_name]
        command = getattr(import_module(f"nvmelab.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="nvmelab")
def cli() -> None:
    """Find out why an NVMe queue hangs: a controller that stock QEMU guests use as their disk, a
    driver that drives other people's devices, and an explorer of every order of their steps.

    \b
    nvmelab demo                                  see it work; needs nothing else
    nvmelab run -- qemu-system-x86_64 ...         your QEMU command line, on our controller
    nvmelab test qemu:qemu-system-x86_64          our driver and our checks on a device
    nvmelab matrix                                which devices forget a rung queue, at which sizes
    nvmelab diagnose qemu.log --hung              whose fault is the hang in this log
    nvmelab rules                                 what is judged
    nvmelab explore overcommit --entries 4        every order of events of driver and device
    nvmelab replay hang-4.json                    a run that it has found, once more
    nvmelab serve disk.img --socket nvme.sock     the controller alone, for any vfio-user client
    nvmelab top                                   every queue of a guest that runs, live
    nvmelab doctor                                what is here, and what is missing
    """
