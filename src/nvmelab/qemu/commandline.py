"""A QEMU command line with NVMe disks, turned into one whose disks are ours.

`rewrite` changes only what must change, and each other word stays where it was:

* each `-device nvme` becomes a `-device vfio-user-pci` on a socket of ours, in the same place;
* the `-drive` or `-blockdev` that it names goes, because our controller opens the image;
* guest RAM becomes shareable (see memory.py).

What we cannot do as QEMU would is refused with a CommandLineError; nothing is left out silently.

    plan = rewrite(["qemu-system-x86_64", "-m", "2G", "-drive", "file=a.img,if=none,id=d",
                    "-device", "nvme,serial=1,drive=d"])
    subprocess.run(plan.command(["/run/nvme0.sock"]))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from nvmelab.qemu.arguments import Argument, split_arguments
from nvmelab.qemu.disks import Disk, Disks, Image, names_used
from nvmelab.qemu.memory import share_memory
from nvmelab.qemu.nvme import NvmeDevice, NvmeProperties, read_properties
from nvmelab.qemu.options import CommandLineError, parse_device, parse_options

__all__ = ["CommandLineError", "Image", "NvmeDevice", "Plan", "rewrite"]

_EXAMPLE = "-drive file=disk.img,format=raw,if=none,id=nvm -device nvme,serial=deadbeef,drive=nvm"
_REFUSED = {
    "daemonize": "the controller lives as long as QEMU does, so QEMU must stay its child",
    "snapshot": "writes go to the image itself; give a copy of the image instead",
}
_NAMESPACES = frozenset({"nvme-ns", "nvme-subsys"})


class Plan(msgspec.Struct, frozen=True):
    """How to run a QEMU whose NVMe devices are ours."""

    devices: tuple[NvmeDevice, ...]
    """In the order of the command line."""
    notes: tuple[str, ...]
    """Sentences for the user: what of the command line was dropped."""
    words: tuple[str | int, ...]
    """The new command line. A number stands for the `-device` value of that device."""

    def command(self, sockets: Sequence[str]) -> list[str]:
        """The command to run, given the path of each device's socket. Raises ValueError."""
        if len(sockets) != len(self.devices):
            raise ValueError(f"{len(self.devices)} sockets needed, {len(sockets)} given")
        return [
            word if isinstance(word, str) else self.devices[word].vfio_user(sockets[word])
            for word in self.words
        ]


def rewrite(argv: Sequence[str]) -> Plan:
    """Plan the run of this QEMU command; `argv[0]` is the QEMU binary. Raises CommandLineError."""
    if not argv:
        raise CommandLineError(f"no QEMU command given; try: qemu-system-x86_64 -m 2G {_EXAMPLE}")
    arguments = split_arguments(argv[1:])
    _refuse_impossible(arguments)
    found = _find_devices(arguments)
    if not found:
        raise CommandLineError(f"no -device nvme on the command line; give one such as: {_EXAMPLE}")
    disks = _find_disks(arguments, found)
    _refuse_settings(arguments, found, disks.values())
    memory = share_memory(arguments)
    notes = (*memory.notes, *_leave_kernel_first(arguments, found), *_useless_traces(arguments))

    removed = frozenset[int]().union(*(disk.arguments for disk in disks.values()))
    places = {position: number for number, position in enumerate(found)}
    words: list[str | int] = [argv[0]]
    for position, argument in enumerate(arguments):
        if position in places:
            words += (argument.words[0], places[position])
        elif position not in removed:
            words += memory.edits.get(position, argument.words)
    words += memory.added
    devices = tuple(
        msgspec.convert({**found[position].fields, "image": disk.image}, NvmeDevice)
        for position, disk in disks.items()
    )
    return Plan(devices, notes, tuple(words))


def _refuse_impossible(arguments: Iterable[Argument]) -> None:
    for argument in arguments:
        if argument.name in _REFUSED:
            raise CommandLineError(f"-{argument.name} is not served: {_REFUSED[argument.name]}")


def _find_devices(arguments: Sequence[Argument]) -> dict[int, NvmeProperties]:
    """The NVMe devices, by the position of their argument."""
    found: dict[int, NvmeProperties] = {}
    for position, argument in enumerate(arguments):
        if argument.name != "device":
            continue
        try:
            table = parse_device(argument.value)
        except CommandLineError:
            # Not readable, so not ours: QEMU will say what is wrong with it.
            continue
        driver = table.get("driver")
        if driver in _NAMESPACES:
            raise CommandLineError(
                f"{argument}: {driver} is not served; give each -device nvme its one namespace "
                f"by drive="
            )
        if driver == "nvme":
            try:
                found[position] = read_properties(table)
            except CommandLineError as error:
                raise CommandLineError(f"{argument}: {error}") from None
    return found


def _useless_traces(arguments: Iterable[Argument]) -> Iterable[str]:
    """QEMU's own trace of a device that it no longer has stays empty."""
    for argument in arguments:
        if argument.name in ("trace", "d") and "pci_nvme" in argument.value:
            yield (
                f"{argument}: QEMU's own nvme device is not used and will log nothing; "
                "give --trace to nvmelab, before the --"
            )


def _leave_kernel_first(
    arguments: Sequence[Argument], found: dict[int, NvmeProperties]
) -> Iterable[str]:
    """A kernel given with `-kernel` is boot index 0 on a PC, and QEMU refuses a device that is it
    as well. Such a line says that the guest boots the kernel and then uses the disk: let it."""
    if not any(argument.name == "kernel" for argument in arguments):
        return
    for position, properties in found.items():
        placement = properties.fields["placement"]
        assert isinstance(placement, dict)
        if placement.get("bootindex") == 0:
            del placement["bootindex"]
            yield f"{arguments[position]}: bootindex=0 is left out, because -kernel boots first"


def _find_disks(arguments: Sequence[Argument], found: dict[int, NvmeProperties]) -> dict[int, Disk]:
    """The disk of each device. A disk that anything else uses as well is refused."""
    disks = Disks(arguments)
    result: dict[int, Disk] = {}
    for position, properties in found.items():
        disk = disks.find(properties.drive, str(arguments[position]))
        for other, argument in enumerate(arguments):
            if other == position or other in disk.arguments:
                continue
            if disk.names & names_used(argument):
                raise CommandLineError(
                    f"{arguments[position]}: its drive {properties.drive!r} is also used by "
                    f"{argument}"
                )
        result[position] = disk
    return result


def _refuse_settings(
    arguments: Iterable[Argument], found: dict[int, NvmeProperties], disks: Iterable[Disk]
) -> None:
    """Refuse `-set` and `-global` for what is no longer QEMU's: it would have no effect."""
    ours = {("device", properties.fields["id"]) for properties in found.values()}
    ours |= {("drive", name) for disk in disks for name in disk.names}
    for argument in arguments:
        if argument.name == "set":
            group, _, rest = argument.value.partition(".")
            if (group, rest.partition(".")[0]) in ours:
                raise CommandLineError(f"{argument}: give this to the -{group} itself")
        elif argument.name == "global":
            short = argument.value.partition("=")[0].partition(".")[0]
            if "nvme" in (short, parse_options(argument.value).get("driver")):
                raise CommandLineError(f"{argument}: give this to each -device nvme itself")
