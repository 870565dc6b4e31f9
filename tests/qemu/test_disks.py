"""`-drive` and `-blockdev`: the image behind them, and what goes from the command line."""

from __future__ import annotations

import pytest

from nvmelab.advice import convert_line
from nvmelab.qemu.commandline import CommandLineError, rewrite
from nvmelab.qemu.disks import Image

DEVICE = ["-device", "nvme,serial=s,drive=d"]
INLINE = "driver=raw,node-name=d,file.driver=file,file.filename=a.img"


def drive(options: str) -> Image:
    """The image of a `-drive` with these options."""
    (device,) = rewrite(["qemu", "-drive", f"if=none,id=d,{options}", *DEVICE]).devices
    return device.image


def blockdev(*values: str) -> Image:
    """The image of these `-blockdev`s, all of which must go from the command line."""
    words = [word for value in values for word in ("-blockdev", value)]
    plan = rewrite(["qemu", *words, *DEVICE])
    assert "-blockdev" not in plan.words
    return plan.devices[0].image


def error(*words: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        rewrite(["qemu", *words, *DEVICE])
    message = str(caught.value)
    assert "\n" not in message
    return message


def drive_error(options: str) -> str:
    return error("-drive", f"if=none,id=d,{options}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # What QEMU 11.1 shows for each as its direct, writeback and no-flush.
        ("", (False, True, True)),
        ("cache=writeback", (False, True, True)),
        ("cache=none", (True, True, True)),
        ("cache=off", (True, True, True)),
        ("cache=writethrough", (False, False, True)),
        ("cache=directsync", (True, False, True)),
        ("cache=unsafe", (False, True, False)),
        ("cache.direct=on", (True, True, True)),
        ("cache.direct", (True, True, True)),
        ("cache.writeback=off", (False, False, True)),
        ("cache.no-flush=on", (False, True, False)),
        ("cache=none,cache.direct=off", (False, True, True)),
        ("file.cache.direct=on", (True, True, True)),
    ],
)
def test_cache_modes(options: str, expected: tuple[bool, bool, bool]) -> None:
    image = drive(f"file=a.img,{options}")
    assert (image.direct, image.write_cache, image.flush) == expected


@pytest.mark.parametrize(
    "options", ["readonly", "readonly=on", "read-only=on", "file.read-only=on"]
)
def test_read_only(options: str) -> None:
    assert drive(f"file=a.img,{options}").read_only


@pytest.mark.parametrize("options", ["readonly=off", "read-only=off", "noreadonly"])
def test_not_read_only(options: str) -> None:
    assert not drive(f"file=a.img,{options}").read_only


def test_discard() -> None:
    assert drive("file=a.img,discard=unmap").discard
    assert drive("file=a.img,discard=on").discard
    assert not drive("file=a.img,discard=ignore").discard
    assert not drive("file=a.img,discard=unmap,file.discard=ignore").discard


@pytest.mark.parametrize(
    ("options", "path", "image_format"),
    [
        ("file=a.img", "a.img", None),
        ("file=a.img,format=raw", "a.img", "raw"),
        ("file=a.img,driver=raw", "a.img", "raw"),
        ("file.filename=a.img", "a.img", None),
        ("format=raw,file.driver=file,file.filename=a.img", "a.img", "raw"),
        ("driver=file,filename=a.img", "a.img", "raw"),
        ("format=host_device,file=/dev/sdx", "/dev/sdx", "raw"),
        ("file=file:a.img", "a.img", None),
        ("file=./a:b.img", "./a:b.img", None),
        ("file=a,,b.img", "a,b.img", None),
        ("file=a.img,file=b.img", "b.img", None),
    ],
)
def test_image_and_format(options: str, path: str, image_format: str | None) -> None:
    image = drive(options)
    assert (image.path, image.format) == (path, image_format)


def test_locking_and_aio() -> None:
    assert not drive("file=a.img,file.locking=off").locking
    assert drive("file=a.img,file.locking=auto").locking
    assert drive("file=a.img,aio=io_uring").aio == "io_uring"
    assert drive("file=a.img,file.aio=native").aio == "native"


def test_options_that_say_what_we_do_anyway_are_taken() -> None:
    drive(
        "file=a.img,media=disk,index=3,snapshot=off,werror=report,rerror=report,copy-on-read=off,"
        "detect-zeroes=off,auto-read-only=on,node-name=n"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("file=a.img,iops=5", "option 'iops' is not served; understood: aio, auto-read-only,"),
        ("file=a.img,throttling.iops-total=5", "option 'throttling' is not served"),
        ("file=a.img,offset=512", "option 'offset' is not served"),
        ("file=a.img,file.pr-manager=p", "option 'pr-manager' is not served"),
        ("file=a.img,snapshot=on", "snapshot=on is not served, only snapshot=off"),
        ("file=a.img,werror=stop", "werror=stop is not served, only werror=report"),
        ("file=a.img,media=cdrom", "media=cdrom is not served, only media=disk"),
        ("file=a.img,detect-zeroes=unmap", "detect-zeroes=unmap is not served"),
        ("file=a.img,cache=bogus", "cache=bogus is unknown; there is: directsync, none,"),
        ("file=a.img,discard=bogus", "discard=bogus is unknown"),
        ("file=a.img,aio=bogus", "aio=bogus is unknown"),
        ("file=a.img,cache.direct=maybe", "cache.direct: 'maybe' is not on or off"),
        ("file=a.img,cache.size=1", "option 'size' is not served"),
        ("file=a.img,format=raw,driver=raw", "both format= and driver= are given"),
        ("file=a.img,file.filename=b.img", "the image is named twice"),
        ("file=a.img,format=bogus", "the format or driver 'bogus' is not served"),
        ("file=a.img,file.driver=nbd", "driver=nbd is not served"),
        ("file=nbd://host/x", "file=nbd:... is not served"),
        ("format=raw", "no image is named"),
        ("file=", "no image is named"),
    ],
)
def test_drive_options_that_are_refused(options: str, expected: str) -> None:
    message = drive_error(options)
    assert message.startswith("-drive if=none,id=d,")
    assert expected in message


def test_other_formats_are_refused_with_the_line_that_helps() -> None:
    line = "make one with: qemu-img convert -O raw 'my disk.qcow2' 'my disk.raw'"
    assert line in drive_error("file=my disk.qcow2,format=qcow2,cache-size=1M")
    assert line in error(
        *("-blockdev", '{"driver":"file","node-name":"f","filename":"my disk.qcow2"}'),
        *("-blockdev", "driver=qcow2,node-name=d,file=f"),
    )
    assert "convert -O raw IMAGE" in drive_error("file=,format=vmdk")
    assert "convert -O raw IMAGE" in error("-blockdev", "driver=qcow2,node-name=d,file=f")


def test_a_converted_image_never_has_the_name_of_the_old_one() -> None:
    assert convert_line("a.raw") == "qemu-img convert -O raw a.raw a.raw.raw"
    assert convert_line("dir/disk") == "qemu-img convert -O raw dir/disk dir/disk.raw"


# -blockdev.

RAW_IMAGE = Image(
    path="a.img",
    format="raw",
    direct=False,
    write_cache=True,
    flush=True,
    discard=False,
    read_only=False,
    aio="threads",
    locking=True,
)


@pytest.mark.parametrize(
    "values",
    [
        (INLINE,),
        ("raw,node-name=d,file.driver=file,file.filename=a.img",),
        ('{"driver":"raw","node-name":"d","file":{"driver":"file","filename":"a.img"}}',),
        ("driver=file,node-name=f0,filename=a.img", "driver=raw,node-name=d,file=f0"),
        ("driver=file,node-name=d,filename=a.img",),
        ("driver=host_device,node-name=d,filename=a.img",),
        (f"{INLINE},file.discard=unmap",),
        (f"{INLINE},file.read-only=off,detect-zeroes=off,force-share=off",),
        # The cache of a format node does not reach a protocol node with a -blockdev of its own.
        ("driver=file,node-name=f0,filename=a.img", "raw,node-name=d,file=f0,cache.direct=on"),
        ("driver=file,node-name=f0,filename=a.img", "raw,node-name=d,file=f0,discard=unmap"),
    ],
)
def test_raw_over_file(values: tuple[str, ...]) -> None:
    assert blockdev(*values) == RAW_IMAGE


def test_an_inline_protocol_node_takes_over_what_its_format_node_says() -> None:
    image = blockdev(f"{INLINE},cache.direct=on,cache.no-flush=on,discard=unmap,read-only=on")
    assert (image.direct, image.flush, image.discard, image.read_only) == (True, False, True, True)
    assert not blockdev(f"{INLINE},cache.direct=on,file.cache.direct=off").direct


def test_a_protocol_node_of_its_own_says_it_itself() -> None:
    image = blockdev(
        "file,node-name=f,filename=a.img,cache.direct=on,discard=unmap,aio=native,locking=off",
        '{"driver":"raw","node-name":"d","file":"f","discard":"unmap","read-only":true}',
    )
    assert (image.direct, image.flush, image.discard, image.read_only) == (True, True, True, True)
    assert (image.aio, image.locking) == ("native", False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{INLINE},readonly=on", "option 'readonly' is not served"),
        (f"{INLINE},size=1M", "option 'size' is not served"),
        (f"{INLINE},cache.writeback=off", "option 'writeback' is not served"),
        (f"{INLINE},cache=none", "cache= of a node has the parts"),
        (f"{INLINE},file.locking=maybe", "locking=maybe is unknown; there is: auto, off, on"),
        ("driver=raw,node-name=d,file=f0", "file=f0: there is no -blockdev with that node-name"),
        ("driver=nbd,node-name=d,server.path=x", "the format or driver 'nbd' is not served"),
        (
            "driver=raw,node-name=d,file.driver=raw,file.file.driver=file",
            "driver=raw is not served",
        ),
        ("node-name=d,file.driver=file,file.filename=a.img", "driver= is missing"),
    ],
)
def test_nodes_that_are_refused(value: str, expected: str) -> None:
    message = error("-blockdev", value)
    assert message.startswith("-blockdev ")
    assert expected in message


# Who uses what.


@pytest.mark.parametrize(
    "words",
    [
        ("-device", "virtio-blk,drive=d"),
        ("-device", '{"driver":"ide-hd","drive":"d"}'),
        ("-device", "nvme,serial=t,drive=d"),
        ("-machine", "pflash0=d"),
        ("-blockdev", "driver=qcow2,node-name=q,file.driver=file,file.filename=q,backing=d"),
        ("-blockdev", '{"driver":"quorum","node-name":"q","children":["x","d"]}'),
        ("-blockdev", "driver=quorum,node-name=q,children.0=x,children.1=d"),
    ],
)
def test_a_drive_that_something_else_uses_too_is_refused(words: tuple[str, ...]) -> None:
    message = error("-blockdev", INLINE, *words)
    assert f"its drive 'd' is also used by {words[0]} " in message


def test_a_protocol_node_that_something_else_uses_too_is_refused() -> None:
    message = error(
        *("-blockdev", "driver=file,node-name=f0,filename=a.img"),
        *("-blockdev", "driver=raw,node-name=d,file=f0"),
        *("-blockdev", "driver=raw,node-name=e,file=f0"),
    )
    assert "is also used by -blockdev driver=raw,node-name=e,file=f0" in message


def test_a_drive_may_be_named_by_its_node_name() -> None:
    words = ["-drive", "file=a.img,if=none,id=x,node-name=d"]
    assert rewrite(["qemu", *words, *DEVICE]).devices[0].image.path == "a.img"
    message = error(*words, "-device", "virtio-blk,drive=x")
    assert "is also used by -device virtio-blk,drive=x" in message


def test_a_drive_that_is_not_there() -> None:
    assert "there is no -drive with id=d and no -blockdev with node-name=d" in error()


def test_a_name_that_stands_twice() -> None:
    words = ["-drive", "file=a.img,if=none,id=d", "-drive", "file=b.img,if=none,id=d"]
    assert "two drives are called 'd'" in error(*words)


@pytest.mark.parametrize("options", ["file=a.img,id=d", "file=a.img,id=d,if=virtio"])
def test_a_drive_that_qemu_connects_by_itself_is_refused(options: str) -> None:
    assert "needs if=none" in error("-drive", options)
