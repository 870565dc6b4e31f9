"""Guest RAM on a QEMU command line, made visible to another process.

Our controller reads and writes guest memory through the file descriptors that QEMU passes on, so
all of it must be a shared memfd or a shared file. Private memory is a trap: QEMU passes a
descriptor then too, but what is behind it is not what the guest sees.

* Each `memory-backend-*` object that is private becomes a shared memfd of the same id and size.
* If the machine has no memory backend, it gets one, of the size that `-m` says.
* `-mem-path` goes, because QEMU refuses it beside a memory backend. `-mem-prealloc` stays: QEMU
  applies it to memory backends as well (seen on 11.1).

Not covered: memory that `-readconfig` describes, and the default RAM of machines that have more
than 128 MiB when `-m` is not given.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from nvmelab.qemu.arguments import Argument
from nvmelab.qemu.options import (
    CommandLineError,
    join_pairs,
    parse_device,
    parse_json,
    parse_nested,
    parse_options,
    read_bool,
    read_memory_size,
    read_size,
    words,
)

RAM_DEFAULT = 128 << 20
"""Bytes of RAM when `-m` does not say: QEMU's default for pc, q35, microvm and arm virt."""

_RAM_ALIGN = 8192  # Bytes. QEMU rounds the size of `-m` up to it before it compares.
_RAM_ID = "nvmelab-ram"

# Backends with a file descriptor, and whether that is shared when nothing is said.
_FILE = "memory-backend-file"
_SHARED_BY_DEFAULT = {_FILE: False, "memory-backend-memfd": True}
# This one need not have a descriptor, shared or not.
_ANONYMOUS = "memory-backend-ram"
# What a memfd backend understands of the others' properties, and what is set anew.
_KEPT = words(
    "id size dump host-nodes hugetlb hugetlbsize merge policy prealloc prealloc-context "
    "prealloc-threads reserve seal x-use-canonical-path-for-ramblock-id"
)
_REPLACED = words("qom-type share")


class MemoryPlan(NamedTuple):
    """What to change so that guest RAM can be shared."""

    edits: dict[int, tuple[str, ...]]
    """New words for an argument, by its position; none: the argument goes."""
    added: tuple[str, ...]
    """Words to add to the command line."""
    notes: tuple[str, ...]
    """Sentences for the user: what was dropped."""


def share_memory(arguments: Sequence[Argument]) -> MemoryPlan:
    """Plan how all guest RAM becomes shared. Raises CommandLineError."""
    edits: dict[int, tuple[str, ...]] = {}
    notes: list[str] = []
    objects = _read_objects(arguments)
    on_nvdimms = _memory_of_nvdimms(arguments)
    for position, argument in enumerate(arguments):
        if argument.name == "mem-path":
            edits[position] = ()
            notes.append(f"{argument} dropped: guest RAM is a shared memfd")
        if position not in objects or not _is_private(objects[position]):
            continue
        backend = objects[position]
        if backend["qom-type"] == _FILE and backend.get("id") in on_nvdimms:
            # An empty memfd in place of the file would lose what the guest expects in it.
            raise CommandLineError(
                f"{argument}: the controller cannot reach an NVDIMM on a private file; add share=on"
            )
        dropped = [key for key in backend if key.split(".")[0] not in _KEPT | _REPLACED]
        edits[position] = (argument.words[0], _as_memfd(argument.value, backend))
        lost = f", without {', '.join(dropped)}" if dropped else ""
        notes.append(f"{argument} is now a memory-backend-memfd with share=on{lost}")
    added: tuple[str, ...] = ()
    if not _has_backend(arguments):
        taken = {table.get("id") for table in objects.values()}
        added = _new_backend(_ram_size(arguments), taken)
    return MemoryPlan(edits, added, tuple(notes))


def _read_objects(arguments: Sequence[Argument]) -> dict[int, Mapping[str, object]]:
    """All objects that can be read, by position. QEMU will say what is wrong with the others."""
    found: dict[int, Mapping[str, object]] = {}
    for position, argument in enumerate(arguments):
        if argument.name == "object":
            try:
                found[position] = _parse_object(argument.value)
            except CommandLineError:
                continue
    return found


def _parse_object(value: str) -> Mapping[str, object]:
    return parse_json(value) if value.startswith("{") else parse_options(value, "qom-type")


def _is_private(backend: Mapping[str, object]) -> bool:
    """Whether this is a memory backend that others cannot map."""
    kind = backend.get("qom-type")
    if kind not in _SHARED_BY_DEFAULT:
        return kind == _ANONYMOUS
    try:
        return not read_bool(backend.get("share", _SHARED_BY_DEFAULT[str(kind)]))
    except CommandLineError:
        return False


def _as_memfd(value: str, backend: Mapping[str, object]) -> str:
    """The same object as a shared memfd, in the form (JSON or not) that it had."""
    kept = {key: old for key, old in backend.items() if key.split(".")[0] in _KEPT}
    if value.startswith("{"):
        table = {"qom-type": "memory-backend-memfd", **kept, "share": True}
        return json.dumps(table, separators=(",", ":"))
    pairs = [(key, str(old)) for key, old in kept.items()]
    return "memory-backend-memfd," + join_pairs([*pairs, ("share", "on")])


def _memory_of_nvdimms(arguments: Iterable[Argument]) -> frozenset[object]:
    found: set[object] = set()
    for argument in arguments:
        if argument.name == "device":
            try:
                device = parse_device(argument.value)
            except CommandLineError:
                continue
            if device.get("driver") == "nvdimm":
                found.add(device.get("memdev"))
    return frozenset(found)


def _has_backend(arguments: Iterable[Argument]) -> bool:
    """Whether RAM already comes from memory backends. Refuses NUMA nodes with memory of theirs."""
    found = False
    for argument in arguments:
        if argument.name in ("machine", "M"):
            found |= "memory-backend" in parse_options(argument.value, "type")
        elif argument.name == "numa":
            node = parse_options(argument.value, "type")
            if "mem" in node:
                raise CommandLineError(
                    f"{argument}: mem= gives the node private memory; use "
                    f"-object memory-backend-memfd,id=m0,size=SIZE,share=on and memdev=m0"
                )
            found |= "memdev" in node
    return found


def _new_backend(size: int, taken: Collection[object]) -> tuple[str, ...]:
    """Words that give the machine a shared memfd of at least `size` bytes as its RAM."""
    rounded = -(-size // _RAM_ALIGN) * _RAM_ALIGN
    ident = _RAM_ID
    while ident in taken:
        ident += "x"
    backend = f"memory-backend-memfd,id={ident},size={rounded},share=on"
    # QEMU merges all its -machine options, so the user's own can stay as they are.
    return ("-object", backend, "-machine", f"memory-backend={ident}")


def _ram_size(arguments: Iterable[Argument]) -> int:
    """Bytes of RAM: the last `-m` that gives a size, or `-machine memory.size=`, or the default."""
    by_machine = by_option = 0
    for argument in arguments:
        try:
            if argument.name == "m":
                options = parse_options(argument.value, "size")
                if "size" in options:
                    by_option = read_memory_size(options["size"]) or RAM_DEFAULT
            elif argument.name in ("machine", "M"):
                machine = parse_nested(argument.value, "type").get("memory")
                if isinstance(machine, dict) and "size" in machine:
                    by_machine = read_size(machine["size"])
        except CommandLineError as error:
            raise CommandLineError(f"{argument}: {error}") from None
    return by_option or by_machine or RAM_DEFAULT
