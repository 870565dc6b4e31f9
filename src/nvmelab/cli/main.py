"""`nvmelab`: the command group. One verb, one file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

from nvmelab import __version__
from nvmelab.cli.options import Fail, one_line

_VERBS = {
    "demo": ("demo", "demo", "See a hang found and explained: no QEMU, no root."),
    "run": ("run", "run", "Run a QEMU command line on our controller."),
    "test": ("test", "test", "Our driver and our checks on a device: QEMU's, yours, ours."),
    "matrix": ("matrix", "matrix_verb", "Which devices forget a rung queue, at which sizes."),
    "diagnose": ("diagnose", "diagnose", "Whose fault is the hang in this log?"),
    "export": ("export", "export", "A log or a capture in another form."),
    "rules": ("rules", "rules", "What is judged, with the specification's sections."),
    "explore": ("explore", "explore_verb", "Try every order of events of a driver and a device."),
    "replay": ("replay", "replay_verb", "Take a run again that explore has found."),
    "serve": ("serve", "serve", "Serve an image on a vfio-user socket."),
    "top": ("top", "top", "Watch the queues of a controller that is serving."),
    "doctor": ("doctor", "doctor", "What is here, what is missing, how to get it."),
}
"""The module of each verb, the name of its command there, and what `--help` says of it."""


@contextlib.contextmanager
def _usage_in_one_line() -> Iterator[None]:
    """A command line that is not understood is an error like any other."""
    try:
        yield
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help itself; click 8.1 has none
            raise
        raise Fail(one_line(error)) from None


class _Verbs(click.Group):
    """Imports a verb when it is asked for: to import all of them takes some 350 ms."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _usage_in_one_line():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C is no result: click would end with 1, which says that something was found."""
        try:
            with _usage_in_one_line():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("nvmelab: interrupted", err=True)
            ctx.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, name, _said = _VERBS[cmd_name]
        command = getattr(import_module(f"nvmelab.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, which asks each command."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, _VERBS[verb][2]) for verb in self.list_commands(ctx)])


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
