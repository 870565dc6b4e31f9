"""What QEMU's log says about its NVMe device: keys, their order, and decimal or hexadecimal.

The words in front of the fields of error events are ours; all else is QEMU's. What a real QEMU
prints is compared in tests/guest/test_trace_format.py.
"""

from __future__ import annotations

import io
import re

import pytest

from nvmelab.trace.events import EVENTS, OURS
from nvmelab.trace.qemu_log import PatternError, QemuLogWriter, select
from nvmelab.trace.qemu_reader import read_log
from nvmelab.trace.taken import TAKEN

# Style (S pairs with a space, E pairs with a sign of equality, C a value behind a colon, P words
# only; + with words in front) and, for each field in order, key:form with d decimal, x hexadecimal,
# q quoted.
TABLE = {
    "create_sq": ("E+", "addr:x sqid:d cqid:d qsize:d qflags:d"),
    "create_cq": ("E+", "addr:x cqid:d vector:d qsize:d qflags:d ien:d"),
    "del_sq": ("E+", "sqid:d"),
    "del_cq": ("E+", "cqid:d"),
    "dbbuf_config": ("E", "dbs_addr:x eis_addr:x"),
    "update_sq_tail": ("S", "sqid:d new_tail:d"),
    "update_cq_head": ("S", "cqid:d new_head:d"),
    "update_sq_eventidx": ("S", "sqid:d new_eventidx:d"),
    "update_cq_eventidx": ("S", "cqid:d new_eventidx:d"),
    "mmio_read": ("S", "addr:x size:d"),
    "mmio_write": ("S", "addr:x data:x size:d"),
    "mmio_doorbell_sq": ("S", "sqid:d new_tail:d"),
    "mmio_doorbell_cq": ("S", "cqid:d new_head:d"),
    "mmio_cfg": ("E+", "config:x"),
    "mmio_aqattr": ("E+", "attributes:x"),
    "mmio_asqaddr": ("E+", "address:x"),
    "mmio_asqaddr_hi": ("E+", "half:x new_address:x"),
    "mmio_acqaddr": ("E+", "address:x"),
    "mmio_acqaddr_hi": ("E+", "half:x new_address:x"),
    "mmio_intm_set": ("E+", "data:x new_mask:x"),
    "mmio_intm_clr": ("E+", "data:x new_mask:x"),
    "mmio_start_success": ("P", ""),
    "mmio_stopped": ("P", ""),
    "mmio_shutdown_set": ("P", ""),
    "mmio_shutdown_cleared": ("P", ""),
    "pci_reset": ("P", ""),
    "admin_cmd": ("S", "cid:d sqid:d opc:x opname:q"),
    "io_cmd": ("S", "cid:d nsid:x sqid:d opc:x opname:q"),
    "read": ("S", "cid:d nsid:d nlb:d count:d lba:x"),
    "write": ("S", "cid:d opname:q nsid:d nlb:d count:d lba:x"),
    "flush_ns": ("S", "nsid:x"),
    "dsm": ("S", "nr:d attr:x"),
    "dsm_deallocate": ("S", "slba:d nlb:d"),
    "identify": ("S", "cid:d cns:x ctrlid:d csi:x"),
    "identify_ctrl": ("P", ""),
    "identify_ctrl_csi": ("E+", "csi:x"),
    "identify_ns": ("S", "nsid:d"),
    "identify_ns_csi": ("E", "nsid:d csi:x"),
    "identify_ns_descr_list": ("S", "nsid:d"),
    "identify_nslist": ("S", "nsid:d"),
    "get_log": ("S", "cid:d lid:x lsp:x rae:x len:d off:d"),
    "getfeat": ("S", "cid:d nsid:x fid:x sel:x cdw11:x"),
    "setfeat": ("S", "cid:d nsid:x fid:x save:x cdw11:x"),
    "setfeat_numq": ("E+", "cq_count:d sq_count:d cq_count:d sq_count:d"),
    "rw_cb": ("S", "cid:d blk:q"),
    "rw_complete_cb": ("S", "cid:d blk:q"),
    "misc_cb": ("S", "cid:d"),
    "enqueue_req_completion": ("S", "cid:d cqid:d dw0:x dw1:x status:x"),
    "irq_msix": ("S+", "vector:d"),
    "irq_pin": ("P", ""),
    "irq_masked": ("P", ""),
    "aer": ("S", "cid:d"),
    "aer_aerl_exceeded": ("P", ""),
    "enqueue_event": ("S", "type:x info:x lid:x"),
    "enqueue_event_noqueue": ("S", "queued:d"),
    "no_outstanding_aers": ("P", ""),
    "process_aers": ("S", "queued:d"),
    "aer_masked": ("S", "type:x mask:x"),
    "aer_post_cqe": ("S", "type:x info:x lid:x"),
    "map_prp": ("S", "trans_len:d len:d prp1:x prp2:x num_prps:d"),
    "map_addr": ("S", "addr:x len:d"),
    "err_req_status": ("S", "cid:d nsid:d status:x opc:x"),
    "err_addr_read": ("S", "addr:x"),
    "err_addr_write": ("S", "addr:x"),
    "err_cfs": ("P", ""),
    "err_aio": ("S", "cid:d err:q status:x"),
    "err_mdts": ("S", "len:d"),
    "err_invalid_dma": ("P", ""),
    "err_invalid_prplist_ent": ("C", "address:x"),
    "err_invalid_prp2_align": ("C", "address:x"),
    "err_invalid_opc": ("S+", "opcode:x"),
    "err_invalid_admin_opc": ("S+", "opcode:x"),
    "err_invalid_lba_range": ("E+", "start:d len:d limit:d"),
    "err_invalid_identify_cns": ("E+", "cns:x"),
    "err_invalid_log_page": ("S", "cid:d lid:x"),
    "err_invalid_create_sq_sqid": ("E+", "sqid:d"),
    "err_invalid_create_sq_cqid": ("E+", "cqid:d"),
    "err_invalid_create_sq_size": ("E+", "qsize:d"),
    "err_invalid_create_sq_addr": ("E+", "addr:x"),
    "err_invalid_create_sq_qflags": ("E+", "qflags:d"),
    "err_invalid_create_cq_cqid": ("E+", "cqid:d"),
    "err_invalid_create_cq_size": ("E+", "size:d"),
    "err_invalid_create_cq_addr": ("E+", "addr:x"),
    "err_invalid_create_cq_vector": ("E+", "vector:d"),
    "err_invalid_create_cq_qflags": ("E+", "qflags:d"),
    "err_invalid_create_cq_entry_size": ("S", "iosqes:d iocqes:d"),
    "err_invalid_del_sq": ("E+", "sid:d"),
    "err_invalid_del_cq_cqid": ("E+", "cqid:d"),
    "err_invalid_del_cq_notempty": ("E+", "cqid:d"),
    "err_startfail": ("P", ""),
    "err_startfail_asq_misaligned": ("C", "address:x"),
    "err_startfail_acq_misaligned": ("C", "address:x"),
    "err_startfail_asqent_sz_zero": ("P", ""),
    "err_startfail_acqent_sz_zero": ("P", ""),
    "err_startfail_page_too_small": ("E+", "log2size:d min:d"),
    "err_startfail_page_too_large": ("E+", "log2size:d max:d"),
    "err_startfail_css": ("C", "value:d"),
    "ub_db_wr_misaligned": ("E+", "offset:x"),
    "ub_db_wr_invalid_sq": ("E+", "sqid:d"),
    "ub_db_wr_invalid_sqtail": ("E+", "sqid:d new_head:d"),
    "ub_db_wr_invalid_cq": ("E+", "cqid:d"),
    "ub_db_wr_invalid_cqhead": ("E+", "cqid:d new_head:d"),
    "ub_mmiowr_misaligned32": ("E+", "offset:x"),
    "ub_mmiowr_toosmall": ("E+", "offset:x size:d"),
    "ub_mmiowr_intmask_with_msix": ("P", ""),
    "ub_mmiowr_ro_csts": ("P", ""),
    "ub_mmiowr_invalid": ("E+", "offset:x data:x"),
    "ub_mmiord_misaligned32": ("E+", "offset:x"),
    "ub_mmiord_toosmall": ("E+", "offset:x"),
    "ub_mmiord_invalid_ofs": ("E+", "offset:x"),
}
NAMES = sorted(set(EVENTS) - set(OURS))

# The general rules of a reader: E takes `word=value`, S takes `word value`.
VALUE = r"(0x[0-9a-f]+|\d+|'[^']*')"
EQUAL = re.compile(rf"(\w+)={VALUE}")
SPACE = re.compile(rf"(\w+) {VALUE}(?= |$)")


def sample(form: str, number: int) -> tuple[object, str]:
    """A value of a field, and how it must be printed. 10 and more, so that the base shows."""
    value = 0xABC0 + number
    return {
        "d": (value, f"{value}"),
        "x": (value, f"0xabc{number}"),
        "q": (f"NAME_{number}", f"'NAME_{number}'"),
    }[form]


def printed(name: str, *values: object) -> str:
    file = io.StringIO()
    QemuLogWriter(file)(name, values)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_event_is_one_of_qemus(name: str) -> None:
    assert name in TABLE


@pytest.mark.parametrize("name", NAMES)
def test_event_has_qemus_fields_in_qemus_order_and_form(name: str) -> None:
    style, fields = TABLE[name]
    if style == "C":  # the key of a value behind a colon is not printed
        assert [form for _, form in EVENTS[name].fields] == [fields[-1]]
        return
    assert " ".join(f"{key}:{form}" for key, form in EVENTS[name].fields) == fields


@pytest.mark.parametrize("name", NAMES)
def test_printed_line_is_prefix_name_space_text(name: str) -> None:
    values = [sample(form, i)[0] for i, (_, form) in enumerate(EVENTS[name].fields)]
    line = printed(name, *values)
    assert re.fullmatch(rf"pci_nvme_{name} \S[^\n]*\n", line)


@pytest.mark.parametrize("name", [name for name in NAMES if TABLE[name][0][0] in "SE"])
def test_printed_fields_are_found_by_the_rule_of_their_style(name: str) -> None:
    style, fields = TABLE[name]
    keys = [field.split(":") for field in fields.split()]
    samples = [sample(form, i) for i, (_, form) in enumerate(keys)]
    text = printed(name, *[value for value, _ in samples]).split(" ", 1)[1].rstrip("\n")
    rule = EQUAL if style[0] == "E" else SPACE
    assert rule.findall(text) == [
        (key, text) for (key, _), (_, text) in zip(keys, samples, strict=True)
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if TABLE[name][0] == "S"])
def test_event_without_words_is_printed_as_pairs_alone(name: str) -> None:
    keys = [field.split(":") for field in TABLE[name][1].split()]
    samples = [sample(form, i) for i, (_, form) in enumerate(keys)]
    pairs = [f"{key} {text}" for (key, _), (_, text) in zip(keys, samples, strict=True)]
    line = printed(name, *[value for value, _ in samples])
    assert line == f"pci_nvme_{name} {' '.join(pairs)}\n"


@pytest.mark.parametrize("name", [name for name in NAMES if TABLE[name][0].endswith("+")])
def test_words_in_front_hold_nothing_that_reads_as_a_field(name: str) -> None:
    words = EVENTS[name].template.split("{", 1)[0]
    words = words[: words.rstrip("= ").rindex(" ")]
    rule = EQUAL if TABLE[name][0][0] == "E" else SPACE
    assert rule.findall(words) == [] and "=" not in words


@pytest.mark.parametrize("name", [name for name in NAMES if TABLE[name][0] == "C"])
def test_value_behind_a_colon_ends_the_line(name: str) -> None:
    value, text = sample(TABLE[name][1][-1], 1)
    assert re.fullmatch(rf"pci_nvme_{name} [^:]+: ?{text}\n", printed(name, value))


def test_unsupported_command_set_stands_behind_the_colon_without_a_space() -> None:
    assert printed("err_startfail_css", 6).endswith(":6\n")


@pytest.mark.parametrize("name", [name for name in NAMES if TABLE[name][0] == "P"])
def test_event_without_fields_is_words_alone(name: str) -> None:
    assert not re.search(r"[={}]|\d+x|0x", printed(name))


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("mmio_read", (0, 8), "pci_nvme_mmio_read addr 0x0 size 8"),
        ("mmio_write", (0x1008, 3, 4), "pci_nvme_mmio_write addr 0x1008 data 0x3 size 4"),
        ("mmio_doorbell_sq", (1, 12), "pci_nvme_mmio_doorbell_sq sqid 1 new_tail 12"),
        (
            "io_cmd",
            (65535, 0xFFFFFFFF, 10, 0, "NVME_NVM_CMD_FLUSH"),
            "pci_nvme_io_cmd cid 65535 nsid 0xffffffff sqid 10 opc 0x0 opname 'NVME_NVM_CMD_FLUSH'",
        ),
        (
            "read",
            (7, 11, 8, 4096, 0xFF),
            "pci_nvme_read cid 7 nsid 11 nlb 8 count 4096 lba 0xff",
        ),
        (
            "enqueue_req_completion",
            (17, 1, 0, 0, 0x4102),
            "pci_nvme_enqueue_req_completion cid 17 cqid 1 dw0 0x0 dw1 0x0 status 0x4102",
        ),
    ],
)
def test_line_is_printed_as_in_a_log_of_qemu(
    name: str, values: tuple[object, ...], line: str
) -> None:
    assert printed(name, *values) == line + "\n"


def test_our_own_events_have_names_of_their_own() -> None:
    assert set(OURS) <= set(EVENTS) and not set(OURS) & set(TABLE)


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_written_is_read(name: str) -> None:
    taken = TAKEN[name]
    values = [
        number + 10 if form != "q" else "X" for number, (_, form) in enumerate(EVENTS[name].fields)
    ]
    seen: list[tuple[int, ...]] = []
    counts = read_log(
        [printed(name, *values).encode()],
        {taken.handler: lambda _at, got: seen.append(got)},
    )
    assert seen == [tuple(values[number] for number in taken.fields)]
    assert (counts.events, counts.damaged) == (1, [])


def test_64_bit_address_is_printed_in_full() -> None:
    assert printed("map_addr", 0xFFFF_FFFF_FFFF_F000, 4096) == (
        "pci_nvme_map_addr addr 0xfffffffffffff000 len 4096\n"
    )


# Selection.


def test_star_selects_every_event() -> None:
    assert select(["pci_nvme_*"]) == set(EVENTS)


def test_exact_name_selects_that_event_alone() -> None:
    assert select(["pci_nvme_irq_msix"]) == {"irq_msix"}


def test_glob_selects_what_it_matches() -> None:
    assert select(["pci_nvme_mmio_doorbell_?q"]) == {"mmio_doorbell_sq", "mmio_doorbell_cq"}


def test_several_patterns_add_up() -> None:
    assert select(["pci_nvme_del_*", "pci_nvme_aer"]) == {"del_sq", "del_cq", "aer"}


def test_minus_takes_events_away() -> None:
    assert select(["pci_nvme_*", "-pci_nvme_mmio_*"]) == {
        name for name in EVENTS if not name.startswith("mmio_")
    }


def test_later_pattern_wins_over_an_earlier_one() -> None:
    assert select(["-pci_nvme_del_sq", "pci_nvme_del_*"]) == {"del_sq", "del_cq"}


def test_minus_of_an_event_that_is_not_selected_is_no_error() -> None:
    assert select(["pci_nvme_aer", "-pci_nvme_irq_*"]) == {"aer"}


def test_no_pattern_selects_nothing() -> None:
    assert select([]) == set()


@pytest.mark.parametrize("pattern", ["irq_msix", "PCI_NVME_IRQ_MSIX", "pci_nvme_", "", "-nope*"])
def test_pattern_that_matches_no_event_is_an_error_of_one_line(pattern: str) -> None:
    with pytest.raises(PatternError) as caught:
        select(["pci_nvme_*", pattern])
    assert repr(pattern) in str(caught.value) and "\n" not in str(caught.value)
