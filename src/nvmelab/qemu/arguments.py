"""A QEMU command line cut into its options, without reading any of their values.

Whether a word is an option or the value of the one before it depends on which options take a
value. QEMU's rule: every option takes one argument or none. The table below has those that take
none, of every version since 7.2; any other word that begins with a dash takes the word after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nvmelab.qemu.options import CommandLineError, shorten, words

WITHOUT_ARGUMENT = words(
    """
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help jitdump
    mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults
    nographic old-param only-migratable perfmap portrait preconfig s semihosting singlestep snapshot
    usb version win2k-hack xen-attach xen-domid-restrict
    """
)


class Argument(NamedTuple):
    """One option with its value, or one disk image that stands alone."""

    words: tuple[str, ...]
    """The words of the command line, as they were."""
    name: str
    """The option without its dashes; empty for a disk image."""
    value: str
    """The option's argument; empty for an option without one."""

    def __str__(self) -> str:
        return shorten(" ".join(self.words))


def split_arguments(line: Sequence[str]) -> list[Argument]:
    """Cut what follows the QEMU binary into options, in order. Raises CommandLineError."""
    arguments: list[Argument] = []
    position = 0
    while position < len(line):
        word = line[position]
        if not word.startswith("-"):
            arguments.append(Argument((word,), "", ""))
            position += 1
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        if name in WITHOUT_ARGUMENT:
            arguments.append(Argument((word,), name, ""))
            position += 1
            continue
        if position + 1 == len(line):
            raise CommandLineError(f"{word} needs an argument, and the command line ends there")
        value = line[position + 1]
        arguments.append(Argument((word, value), name, value))
        position += 2
    return arguments
