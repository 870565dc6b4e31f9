"""Rewriting a QEMU command line. What QEMU makes of the results: tests/guest/test_qemu_binary."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelab.qemu.arguments import WITHOUT_ARGUMENT
from nvmelab.qemu.commandline import CommandLineError, Plan, rewrite

DRIVE = ["-drive", "file=a.img,if=none,id=d,format=raw"]
DEVICE = ["-device", "nvme,serial=s,drive=d"]
RAM = [
    *("-object", "memory-backend-memfd,id=nvmelab-ram,size=134217728,share=on"),
    *("-machine", "memory-backend=nvmelab-ram"),
]


def plan(*words: str) -> Plan:
    return rewrite(["qemu", *words])


def command(*words: str) -> list[str]:
    """The rewritten command without the binary; sockets are called 0, 1..."""
    planned = plan(*words)
    sockets = [str(number) for number in range(len(planned.devices))]
    return planned.command(sockets)[1:]


def vfio_user(socket: str, **properties: object) -> str:
    table = {"driver": "vfio-user-pci", "socket": {"path": socket, "type": "unix"}, **properties}
    return json.dumps(table, separators=(",", ":"))


def error(*words: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        plan(*words)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_example_of_the_readme() -> None:
    planned = rewrite(
        [
            *("qemu-system-x86_64", "-m", "2G", "-smp", "1"),
            *("-device", "nvme,serial=deadbeef,drive=nvm,bootindex=0"),
            *("-drive", "file=usr.img,if=none,id=nvm,cache=none,aio=native"),
            *("-kernel", "vmlinuz", "-initrd", "initrd.gz"),
            *("-append", "console=ttyS0 -device nvme", "-nographic"),
        ]
    )
    assert planned.command(["/run/nvme.sock"]) == [
        *("qemu-system-x86_64", "-m", "2G", "-smp", "1"),
        *("-device", vfio_user("/run/nvme.sock")),
        *("-kernel", "vmlinuz", "-initrd", "initrd.gz"),
        *("-append", "console=ttyS0 -device nvme", "-nographic"),
        *("-object", "memory-backend-memfd,id=nvmelab-ram,size=2147483648,share=on"),
        *("-machine", "memory-backend=nvmelab-ram"),
    ]
    (device,) = planned.devices
    assert (device.serial, device.id, device.mqes) == ("deadbeef", None, None)
    image = device.image
    assert (image.path, image.format, image.aio) == ("usr.img", None, "native")
    assert (image.direct, image.write_cache, image.flush) == (True, True, True)
    assert (image.discard, image.read_only, image.locking) == (False, False, True)
    assert planned.notes == (
        "-device nvme,serial=deadbeef,drive=nvm,bootindex=0: bootindex=0 is left out, because "
        "-kernel boots first",
    )


def test_boot_index_0_stays_without_a_kernel() -> None:
    planned = plan(*DRIVE, "-device", "nvme,serial=s,drive=d,bootindex=0")
    assert planned.command(["0"])[2] == vfio_user("0", bootindex=0)
    assert planned.notes == ()


def test_other_boot_indexes_stay_beside_a_kernel() -> None:
    planned = plan("-kernel", "k", *DRIVE, "-device", "nvme,serial=s,drive=d,bootindex=1")
    assert planned.command(["0"])[4] == vfio_user("0", bootindex=1)


# What is not ours stays.

OWNED = {
    *("device", "drive", "blockdev", "object", "machine", "M", "m", "mem-path", "numa"),
    *("set", "global", "snapshot", "daemonize"),
}
FLAGS = sorted(WITHOUT_ARGUMENT - OWNED)
WITH_VALUE = [
    "append",
    "kernel",
    "name",
    "cpu",
    "accel",
    "trace",
    "netdev",
    "serial",
    "smp",
    "set2",
]
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["-device nvme", "nvme,drive=d", "-drive", "-snapshot", "-", "--", "d", "{"]),
)
FOREIGN = st.one_of(
    st.sampled_from(FLAGS).map(lambda name: [f"-{name}"]),
    st.tuples(st.sampled_from(["-", "--"]), st.sampled_from(WITH_VALUE), VALUES).map(
        lambda parts: [parts[0] + parts[1], parts[2]]
    ),
    st.sampled_from([["disk.img"], ["dir/-device"]]),
)


@settings(deadline=None)
@given(st.lists(FOREIGN, max_size=4), st.lists(FOREIGN, max_size=4), st.lists(FOREIGN, max_size=4))
def test_foreign_arguments_keep_their_words_and_order(
    first: list[list[str]], second: list[list[str]], third: list[list[str]]
) -> None:
    before, between, after = (sum(part, list[str]()) for part in (first, second, third))
    assert command(*before, *DRIVE, *between, *DEVICE, *after) == [
        *before,
        *between,
        *("-device", vfio_user("0")),
        *after,
        *RAM,
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("-device", "virtio-net-pci,netdev=n"),
        ("-device", '{"driver":"virtio-rng-pci"}'),
        ("-device", "{broken"),
        ("-drive", "file=b.img,if=virtio,media=disk,throttling.iops-total=5"),
        ("-blockdev", "driver=qcow2,node-name=other,file.driver=file,file.filename=o.qcow2"),
        ("-blockdev", "broken"),
        ("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        ("-object", "secret,id=s,data=x"),
        ("-object", "memory-backend-memfd,id=m1,size=1G,share=on,prealloc=on"),
        ("-object", "memory-backend-memfd,id=m1,size=1G"),
        ("-object", "memory-backend-file,id=m1,size=1G,mem-path=/dev/shm/x,share=on"),
        ("-object", '{"qom-type":"memory-backend-memfd","id":"m1","size":1024,"share":true}'),
        ("-object", "memory-backend-shm,id=m1,size=1G"),
        ("-object", "broken{"),
        ("-machine", "q35,accel=tcg"),
        ("-M", "q35"),
        ("-set", "device.other.x=1"),
        ("-global", "virtio-blk-pci.x=1"),
        ("-trace", "pci_nvme_*"),
        ("-mem-prealloc",),
        ("-numa", "cpu,node-id=0"),
        ("-S",),
        ("-incoming", "defer"),
        ("-readconfig", "vm.cfg"),
    ],
)
def test_options_like_ours_that_pass_untouched(words: tuple[str, ...]) -> None:
    assert command(*words, *DRIVE, *DEVICE) == [*words, "-device", vfio_user("0"), *RAM]


def test_the_double_dash_of_an_option_is_kept() -> None:
    assert command("--drive", DRIVE[1], "--device", DEVICE[1])[:2] == ["--device", vfio_user("0")]


# -device nvme.


def test_several_devices_keep_their_places() -> None:
    planned = plan(
        *("-device", "nvme,serial=a,drive=d0,id=n0"),
        *("-drive", "file=0.img,if=none,id=d0", "-nographic", "-drive", "file=1.img,if=none,id=d1"),
        *("-device", "nvme,serial=b,drive=d1,id=n1"),
    )
    assert [device.image.path for device in planned.devices] == ["0.img", "1.img"]
    assert planned.command(["/a", "/b"])[1:6] == [
        *("-device", vfio_user("/a", id="n0"), "-nographic"),
        *("-device", vfio_user("/b", id="n1")),
    ]
    with pytest.raises(ValueError, match="2 sockets needed, 1 given"):
        planned.command(["/a"])


def test_placement_goes_on_to_vfio_user_with_the_types_of_json() -> None:
    text = "nvme,serial=s,drive=d,id=x,bus=pcie.0,addr=0x6.1,bootindex=0x2,acpi-index=5"
    assert json.loads(command(*DRIVE, "-device", f"{text},multifunction=on")[1]) == {
        "driver": "vfio-user-pci",
        "socket": {"path": "0", "type": "unix"},
        "id": "x",
        "bus": "pcie.0",
        "addr": "0x6.1",
        "bootindex": 2,
        "acpi-index": 5,
        "multifunction": True,
    }


def test_a_device_in_json() -> None:
    text = '{"driver":"nvme","serial":"s","drive":"d","addr":48,"mqes":3,"bootindex":1}'
    planned = plan(*DRIVE, "-device", text)
    assert planned.devices[0].mqes == 3
    assert planned.command(["0"])[2] == vfio_user("0", addr=48, bootindex=1)


def test_properties_of_the_controller() -> None:
    text = (
        "nvme,serial=s,drive=d,mqes=3,max_ioqpairs=1,msix_qsize=2048,mdts=0,"
        "logical_block_size=4k,physical_block_size=8192"
    )
    (device,) = plan(*DRIVE, "-device", text).devices
    assert (device.mqes, device.max_ioqpairs, device.msix_qsize, device.mdts) == (3, 1, 2048, 0)
    assert (device.logical_block_size, device.physical_block_size) == (4096, 8192)


def test_defaults_are_those_of_qemu() -> None:
    (device,) = plan(*DRIVE, *DEVICE).devices
    assert (device.mqes, device.max_ioqpairs, device.msix_qsize, device.mdts) == (None, 64, 65, 7)
    assert (device.logical_block_size, device.physical_block_size) == (512, 512)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ("mqes=0", "mqes=0 is not between 1 and 65535"),
        ("mqes=65536", "mqes=65536 is not between 1 and 65535"),
        ("mqes=3k", "mqes: '3k' is not an integer"),
        ("max_ioqpairs=0", "max_ioqpairs=0 is not between 1 and 65535"),
        ("msix_qsize=2049", "msix_qsize=2049 is not between 1 and 2048"),
        ("mdts=256", "mdts=256 is not between 0 and 255"),
        ("logical_block_size=1000", "logical_block_size=1000 is not a power of two between"),
        ("physical_block_size=4M", "physical_block_size=4194304 is not a power of two between"),
        ("logical_block_size=4096", "logical_block_size=4096 is larger than physical_block_size="),
        ("bootindex=a", "bootindex: 'a' is not an integer"),
        ("multifunction=maybe", "multifunction: 'maybe' is not on or off"),
        ("cmb_size_mb=4", "property 'cmb_size_mb' is not served; understood: serial, drive, id,"),
        ("subsys=sub0", "subsys= is not served"),
        ("serial=123456789012345678901", "serial= takes at most 20 ASCII characters"),
    ],
)
def test_properties_that_are_refused(properties: str, expected: str) -> None:
    message = error(*DRIVE, "-device", f"nvme,drive=d,serial=s,{properties}")
    assert message.startswith("-device nvme,drive=d,serial=s,")
    assert expected in message


def test_serial_and_drive_are_required() -> None:
    assert "serial= is required" in error(*DRIVE, "-device", "nvme,drive=d")
    assert "drive= is required" in error(*DRIVE, "-device", "nvme,serial=s")


@pytest.mark.parametrize("device", ["nvme-ns,drive=d", '{"driver":"nvme-subsys"}'])
def test_namespaces_apart_from_their_controller_are_refused(device: str) -> None:
    assert "is not served; give each -device nvme" in error(*DRIVE, *DEVICE, "-device", device)


@pytest.mark.parametrize(
    "words",
    [
        ("-global", "nvme.mqes=3"),
        ("-global", "driver=nvme,property=mqes,value=3"),
        ("-set", "drive.d.cache=none"),
        ("-set", "device.x.mqes=3"),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(words: tuple[str, str]) -> None:
    assert "itself" in error(*DRIVE, "-device", "nvme,serial=s,drive=d,id=x", *words)


# The whole line.


def test_a_line_without_nvme_is_refused_with_an_example() -> None:
    assert "-device nvme,serial=deadbeef,drive=nvm" in error("-m", "2G")
    assert "-device nvme" in error("-append", "-device nvme")
    with pytest.raises(CommandLineError, match="no QEMU command given"):
        rewrite([])


@pytest.mark.parametrize("option", ["-daemonize", "-snapshot", "--snapshot"])
def test_options_that_cannot_work_are_refused(option: str) -> None:
    assert "is not served" in error(*DRIVE, *DEVICE, option)


def test_an_option_that_lacks_its_argument_is_refused() -> None:
    assert error(*DRIVE, "-device") == "-device needs an argument, and the command line ends there"


# Guest RAM.


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ((), 128 << 20),
        (("-m", "512"), 512 << 20),
        (("-m", "1.5G"), 1536 << 20),
        (("-m", "0"), 128 << 20),
        (("-m", ""), 128 << 20),
        (("-m", "1G", "-m", "256"), 256 << 20),
        (("-m", "1G", "-m", "slots=2,maxmem=4G"), 1 << 30),
        (("-m", "size=64,slots=2,maxmem=4G"), 64 << 20),
        (("-m", "16777217B"), 16_785_408),
        (("-m", "0.1G"), 107_380_736),
        (("-M", "q35,memory.size=256M"), 256 << 20),
        (("-m", "512", "-M", "memory.size=256M"), 512 << 20),
    ],
)
def test_ram_has_the_size_that_qemu_would_give_it(words: tuple[str, ...], size: int) -> None:
    assert command(*words, *DRIVE, *DEVICE) == [
        *words,
        *("-device", vfio_user("0")),
        *("-object", f"memory-backend-memfd,id=nvmelab-ram,size={size},share=on"),
        *RAM[2:],
    ]


@pytest.mark.parametrize("size", ["1.5", "0x40000000", "2Gi", "x"])
def test_a_size_that_qemu_refuses_is_refused(size: str) -> None:
    assert error("-m", size, *DRIVE, *DEVICE).startswith(f"-m {size}: ")


def test_the_id_of_our_memory_is_not_one_that_is_taken() -> None:
    taken = ("-object", "memory-backend-memfd,id=nvmelab-ram,size=1G")
    assert command(*DRIVE, *DEVICE, *taken)[-1] == "memory-backend=nvmelab-ramx"


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (
            "memory-backend-ram,id=m0,size=1G,prealloc=on,merge=off,host-nodes=0,policy=bind",
            "id=m0,size=1G,prealloc=on,merge=off,host-nodes=0,policy=bind,share=on",
            "",
        ),
        ("memory-backend-ram,id=m0,size=1G,share=on", "id=m0,size=1G,share=on", ""),
        ("memory-backend-memfd,share=off,id=m0,size=1G", "id=m0,size=1G,share=on", ""),
        (
            "memory-backend-file,id=m0,mem-path=/dev/hugepages,size=1G,align=2M,pmem=off",
            "id=m0,size=1G,share=on",
            ", without mem-path, align, pmem",
        ),
    ],
)
def test_a_private_backend_of_the_machine_becomes_a_shared_memfd(
    old: str, new: str, lost: str
) -> None:
    words = ("-machine", "q35,memory-backend=m0", "-object", old)
    planned = plan(*words, *DRIVE, *DEVICE)
    assert planned.command(["0"])[1:] == [
        *("-machine", "q35,memory-backend=m0"),
        *("-object", f"memory-backend-memfd,{new}"),
        *("-device", vfio_user("0")),
    ]
    (note,) = planned.notes
    assert note.endswith(f"is now a memory-backend-memfd with share=on{lost}")


def test_a_private_backend_in_json() -> None:
    old = '{"qom-type":"memory-backend-ram","id":"m0","size":1024,"share":false}'
    new = '{"qom-type":"memory-backend-memfd","id":"m0","size":1024,"share":true}'
    assert command(*DRIVE, *DEVICE, "-object", old, "-numa", "node,memdev=m0") == [
        *("-device", vfio_user("0"), "-object", new, "-numa", "node,memdev=m0")
    ]


def test_memory_of_a_dimm_is_shared_beside_the_ram_of_the_machine() -> None:
    words = ("-device", "pc-dimm,memdev=m1")
    assert command(*DRIVE, *DEVICE, *words, "-object", "memory-backend-ram,id=m1,size=1G") == [
        *("-device", vfio_user("0"), *words),
        *("-object", "memory-backend-memfd,id=m1,size=1G,share=on"),
        *RAM,
    ]


def test_an_nvdimm_on_a_private_file_is_refused() -> None:
    backend = ("-object", "memory-backend-file,id=m1,size=1G,mem-path=nv.img")
    assert "add share=on" in error(*DRIVE, *DEVICE, *backend, "-device", "nvdimm,memdev=m1")


def test_mem_path_is_dropped_with_a_note() -> None:
    planned = plan(*DRIVE, *DEVICE, "-mem-path", "/dev/hugepages")
    assert planned.command(["0"])[1:] == ["-device", vfio_user("0"), *RAM]
    assert planned.notes == ("-mem-path /dev/hugepages dropped: guest RAM is a shared memfd",)


def test_numa_nodes_with_memory_of_their_own_are_refused() -> None:
    assert "memdev=m0" in error(*DRIVE, *DEVICE, "-numa", "node,mem=64")
