"""The `-drive` and `-blockdev` options of a QEMU command line, and the image file behind each.

A disk here is a raw image in a local file or block device. Both ways to write it come down to the
same tree of nodes, a `raw` format node over a `file` protocol node, which is judged once:

* O_DIRECT and cache.no-flush are the protocol node's; one written inline takes over its parent's;
* discard must be allowed by both; a protocol node written inline allows it unless it says no;
* read-only is either's.

What a node may not have here (other formats, throttling, snapshots) is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import msgspec

from nvmelab.advice import convert_line
from nvmelab.qemu.arguments import Argument
from nvmelab.qemu.options import (
    CommandLineError,
    nest,
    parse_device,
    parse_nested,
    parse_options,
    read_bool,
    words,
)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One disk image, and how QEMU was told to treat it."""

    path: str
    format: str | None
    """`raw`, or None: QEMU would look into the image, and so must we."""
    direct: bool
    """Past the host's page cache (O_DIRECT)."""
    write_cache: bool
    """The guest sees a volatile write cache; without it every write is made durable."""
    flush: bool
    """A flush of the guest reaches the disk; off with `cache=unsafe`."""
    discard: bool
    """Deallocated blocks are given back to the host."""
    read_only: bool
    aio: str
    """`threads`, `native` or `io_uring`: what QEMU would have used. For the report only."""
    locking: bool
    """Lock the image as QEMU does (QEMU's `auto` counts as on)."""


class _Settings(NamedTuple):
    direct: bool
    no_flush: bool
    read_only: bool
    discard: bool


_NOTHING_SET = _Settings(direct=False, no_flush=False, read_only=False, discard=False)
_SERVED = "nvmelab serves raw images in local files and block devices"

_CACHE_MODES = {
    # mode: (cache.direct, cache.no-flush, cache.writeback)
    "writeback": ("off", "off", "on"),
    "none": ("on", "off", "on"),
    "off": ("on", "off", "on"),
    "writethrough": ("off", "off", "off"),
    "directsync": ("on", "off", "off"),
    "unsafe": ("off", "on", "on"),
}
_CACHE_KEYS = ("cache.direct", "cache.no-flush", "cache.writeback")
_DISCARD_MODES = {"ignore": False, "off": False, "unmap": True, "on": True}
_IMAGE_FORMATS = words("bochs cloop dmg luks parallels qcow qcow2 qed vdi vhdx vmdk vpc")
_PROTOCOLS = frozenset({"file", "host_device"})
_AIO_MODES = frozenset({"threads", "native", "io_uring"})
_LOCKING_MODES = {"auto": True, "on": True, "off": False}

# Options that say what we do anyway: the one value of each that we can honour.
_FIXED = {
    "detect-zeroes": "off",
    "force-share": "off",
    "snapshot": "off",
    "copy-on-read": "off",
    "media": "disk",
    "werror": "report",
    "rerror": "report",
}
_NODE_KEYS = words(
    "driver node-name cache discard read-only auto-read-only detect-zeroes force-share"
)
_FORMAT_KEYS = _NODE_KEYS | {"file"}
_PROTOCOL_KEYS = _NODE_KEYS | {"filename", "aio", "locking"}
# `cache` stands for the mode; cache.direct and its like are a node's.
_DRIVE_KEYS = words(
    "aio bus cache copy-on-read format id if index media readonly rerror snapshot unit werror"
)
# Keys of a block node whose value may be the name of another node.
_CHILD_KEYS = words("backing children data-file file image log raw target test")
_MACHINE_DRIVES = frozenset({"pflash0", "pflash1"})
_PROTOCOL_PREFIX = re.compile(r"([^/:]+):")


class Disk(NamedTuple):
    """An image, and what of the command line describes it."""

    image: Image
    arguments: frozenset[int]
    """Which arguments, by position, this disk is made of."""
    names: frozenset[str]
    """Every id and node name by which something else could refer to it."""


class _Node(NamedTuple):
    argument: int
    table: dict[str, object]


class Disks:
    """All drives and block nodes of a command line.

    Options that cannot be read are skipped: they are not ours, and QEMU will say what is wrong.
    """

    def __init__(self, arguments: Sequence[Argument]) -> None:
        self._arguments = arguments
        self._drives: list[tuple[int, dict[str, str]]] = []
        self._nodes: list[_Node] = []
        for position, argument in enumerate(arguments):
            try:
                if argument.name == "drive":
                    self._drives.append((position, parse_options(argument.value)))
                elif argument.name == "blockdev":
                    self._nodes.append(_Node(position, parse_nested(argument.value, "driver")))
            except CommandLineError:
                continue

    def find(self, name: str, wanted_by: str) -> Disk:
        """The disk with this id or node name. `wanted_by` is the device, as errors name it.

        Raises CommandLineError if it is not there, is there twice, or is not a raw local image.
        """
        drives = [drive for drive in self._drives if name in _drive_names(drive[1])]
        nodes = [node for node in self._nodes if node.table.get("node-name") == name]
        if len(drives) + len(nodes) > 1:
            raise CommandLineError(f"{wanted_by}: two drives are called {name!r}")
        if not drives and not nodes:
            raise CommandLineError(
                f"{wanted_by}: there is no -drive with id={name} and no -blockdev with "
                f"node-name={name} on the command line"
            )
        position = drives[0][0] if drives else nodes[0].argument
        try:
            if drives:
                return self._from_drive(*drives[0])
            return self._disk(nodes[0], write_cache=True)
        except CommandLineError as error:
            raise CommandLineError(f"{self._arguments[position]}: {error}") from None

    def _from_drive(self, position: int, options: dict[str, str]) -> Disk:
        if options.get("if") != "none":
            raise CommandLineError("a drive for -device nvme needs if=none")
        write_cache, table = _drive_to_node(options)
        disk = self._disk(_Node(position, table), write_cache=write_cache)
        return disk._replace(names=disk.names | _drive_names(options))

    def _disk(self, node: _Node, *, write_cache: bool) -> Disk:
        """Judge a node and the protocol node below it."""
        table = node.table
        driver = table.get("driver")
        if driver is None and self._arguments[node.argument].name == "blockdev":
            raise CommandLineError("driver= is missing")
        if driver in _PROTOCOLS:
            protocol = _Node(node.argument, table)
            upper = settings = _settings(table, _NOTHING_SET)
        else:
            if driver not in ("raw", None):
                self._refuse_driver(str(driver), node)
            _refuse_unknown(table, _FORMAT_KEYS)
            upper = _settings(table, _NOTHING_SET)
            protocol, inherited = self._protocol_below(node, upper)
            settings = _settings(protocol.table, inherited)
        below = protocol.table
        if below.get("driver", "file") not in _PROTOCOLS:
            raise CommandLineError(f"driver={below['driver']} is not served; {_SERVED}")
        _refuse_unknown(below, _PROTOCOL_KEYS)
        path = below.get("filename")
        if not isinstance(path, str) or not path:
            raise CommandLineError("no image is named; give file=PATH (-drive) or filename=PATH")
        image = Image(
            path=path,
            format=None if driver is None else "raw",
            direct=settings.direct,
            write_cache=write_cache,
            flush=not settings.no_flush,
            discard=upper.discard and settings.discard,
            read_only=upper.read_only or settings.read_only,
            aio=_one_of(below, "aio", _AIO_MODES, "threads"),
            locking=_LOCKING_MODES[_one_of(below, "locking", _LOCKING_MODES, "auto")],
        )
        names = (table.get("node-name"), below.get("node-name"))
        return Disk(
            image,
            frozenset({node.argument, protocol.argument}),
            frozenset(name for name in names if isinstance(name, str)),
        )

    def _protocol_below(self, node: _Node, upper: _Settings) -> tuple[_Node, _Settings]:
        """The node under a format node, and what it takes over."""
        below = node.table.get("file")
        if isinstance(below, dict):
            # QEMU leaves the decision about discard to the format node.
            return _Node(node.argument, below), upper._replace(discard=True)
        for other in self._nodes:
            if isinstance(below, str) and other.table.get("node-name") == below:
                return other, _NOTHING_SET
        raise CommandLineError(f"file={below}: there is no -blockdev with that node-name")

    def _refuse_driver(self, driver: str, node: _Node) -> NoReturn:
        if driver not in _IMAGE_FORMATS:
            raise CommandLineError(f"the format or driver {driver!r} is not served; {_SERVED}")
        try:
            path = self._protocol_below(node, _NOTHING_SET)[0].table.get("filename")
        except CommandLineError:
            path = None
        raise CommandLineError(
            f"{driver} images are not served, only raw ones; make one with: "
            f"{convert_line(str(path or 'IMAGE'))}"
        )


def names_used(argument: Argument) -> frozenset[str]:
    """The drive ids and node names that an option refers to, as far as we can read it."""
    try:
        if argument.name == "device":
            return _strings(parse_device(argument.value), "", frozenset({"drive"}))
        if argument.name == "blockdev":
            return _strings(parse_nested(argument.value, "driver"), "", _CHILD_KEYS)
        if argument.name in ("machine", "M"):
            return _strings(parse_options(argument.value, "type"), "", _MACHINE_DRIVES)
    except CommandLineError:
        pass
    return frozenset()


def _strings(value: object, key: str, keys: frozenset[str]) -> frozenset[str]:
    """The strings that stand under these keys, in inner tables and lists too."""
    if isinstance(value, dict):
        # Members of a list may be written as `children.0=`: they stand for the list's key.
        inner = [(key if name.isdigit() else name, member) for name, member in value.items()]
    elif isinstance(value, list):
        inner = [(key, member) for member in value]
    else:
        return frozenset({value}) if isinstance(value, str) and key in keys else frozenset()
    return frozenset[str]().union(*(_strings(member, name, keys) for name, member in inner))


def _drive_names(options: Mapping[str, str]) -> frozenset[str]:
    return frozenset(options[key] for key in ("id", "node-name") if key in options)


def _drive_to_node(options: Mapping[str, str]) -> tuple[bool, dict[str, object]]:
    """The write cache of a `-drive`, and the tree of nodes that QEMU would make of it."""
    rest = dict(options)
    if "format" in rest and "driver" in rest:
        raise CommandLineError("both format= and driver= are given")
    if "format" in rest:
        rest["driver"] = rest.pop("format")
    alone = rest.get("driver") in _PROTOCOLS
    known = _DRIVE_KEYS | (_PROTOCOL_KEYS if alone else _FORMAT_KEYS) | {"file"}
    if rest.get("driver") not in _IMAGE_FORMATS:
        _refuse_unknown({key.split(".")[0]: None for key in rest}, known)
    for key in _FIXED:
        _check_fixed(rest, key)
    mode = rest.get("cache", "writeback")
    if mode not in _CACHE_MODES:
        raise CommandLineError(f"cache={mode} is unknown; there is: {_listed(_CACHE_MODES)}")
    # What is said one by one goes before the mode, as in QEMU.
    for key, value in zip(_CACHE_KEYS, _CACHE_MODES[mode], strict=True):
        rest.setdefault(key, value)
    write_cache = _bool_of("cache.writeback", rest.pop("cache.writeback"))
    if "readonly" in rest:
        rest["read-only"] = rest["readonly"]
    path, aio = rest.get("file"), rest.get("aio")
    for key in _DRIVE_KEYS | {"file"}:
        rest.pop(key, None)
    table = nest(rest)
    protocol = table if alone else table.setdefault("file", {})
    assert isinstance(protocol, dict)  # A plain `file` was taken out before.
    if path is not None:
        if "filename" in protocol:
            raise CommandLineError("the image is named twice, by file= and by filename=")
        protocol["filename"] = _local_path(path)
    if aio is not None:
        protocol.setdefault("aio", aio)
    return write_cache, table


def _local_path(text: str) -> str:
    """The path in a `file=`, which may begin with the name of a protocol."""
    match = _PROTOCOL_PREFIX.match(text)
    if match is None:
        return text
    if match[1] != "file":
        raise CommandLineError(
            f"file={match[1]}:... is not served, only local files and block devices "
            f"(a path with a colon is written ./PATH)"
        )
    return text[match.end() :]


def _settings(node: Mapping[str, object], inherited: _Settings) -> _Settings:
    """What a node says itself, or else what it takes over."""
    for key in _FIXED.keys() & _NODE_KEYS:
        _check_fixed(node, key)
    # We never fall back to read-only, so there is nothing to do for either value.
    _bool_of("auto-read-only", node.get("auto-read-only", False))
    cache = node.get("cache", {})
    if not isinstance(cache, dict):
        raise CommandLineError("cache= of a node has the parts cache.direct and cache.no-flush")
    _refuse_unknown(cache, frozenset({"direct", "no-flush"}))
    discard = inherited.discard
    if "discard" in node:
        discard = _DISCARD_MODES[_one_of(node, "discard", _DISCARD_MODES, "ignore")]
    return _Settings(
        direct=_bool_of("cache.direct", cache.get("direct", inherited.direct)),
        no_flush=_bool_of("cache.no-flush", cache.get("no-flush", inherited.no_flush)),
        read_only=_bool_of("read-only", node.get("read-only", inherited.read_only)),
        discard=discard,
    )


def _bool_of(key: str, value: object) -> bool:
    try:
        return read_bool(value)
    except CommandLineError as error:
        raise CommandLineError(f"{key}: {error}") from None


def _one_of(
    table: Mapping[str, object], key: str, values: Mapping[str, bool] | frozenset[str], default: str
) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or value not in values:
        raise CommandLineError(f"{key}={value} is unknown; there is: {_listed(values)}")
    return value


def _check_fixed(table: Mapping[str, object], key: str) -> None:
    """Refuse a value of this option that is not the only one that we can honour."""
    only = _FIXED[key]
    value = table.get(key, only)
    if value is False:
        value = "off"
    if only == "off" and isinstance(value, str) and value in ("no", "false", "n"):
        value = "off"
    if value != only:
        raise CommandLineError(f"{key}={value} is not served, only {key}={only}")


def _refuse_unknown(table: Mapping[str, object], known: frozenset[str]) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise CommandLineError(f"option {unknown[0]!r} is not served; understood: {_listed(known)}")


def _listed(values: Mapping[str, object] | frozenset[str]) -> str:
    return ", ".join(sorted(values))
