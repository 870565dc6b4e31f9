"""The monitor, event by event: what breaks a rule, and what only looks like it."""

from __future__ import annotations

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.rules import RULES
from nvmelab.check.verdict import judge
from nvmelab.report.diagnosis import verdict_lines
from nvmelab.trace.qemu_reader import read_log
from nvmelab.trace.taken import TAKEN

START = """\
pci_nvme_mmio_cfg wrote MMIO, config controller config=0x460001
pci_nvme_mmio_aqattr wrote MMIO, admin queue attributes=0x70007
pci_nvme_mmio_start_success setting controller enable bit succeeded
pci_nvme_mmio_doorbell_sq sqid 0 new_tail 1
pci_nvme_admin_cmd cid 0 sqid 0 opc 0x9 opname 'NVME_ADM_CMD_SET_FEATURES'
pci_nvme_setfeat cid 0 nsid 0x0 fid 0x7 save 0x0 cdw11 0x30003
pci_nvme_setfeat_numq requested cq_count=4 sq_count=4, responding with cq_count=4 sq_count=4
pci_nvme_enqueue_req_completion cid 0 cqid 0 dw0 0x30003 dw1 0x0 status 0x0
pci_nvme_irq_msix raising MSI-X IRQ vector 0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 1
pci_nvme_mmio_doorbell_sq sqid 0 new_tail 2
pci_nvme_admin_cmd cid 1 sqid 0 opc 0x5 opname 'NVME_ADM_CMD_CREATE_CQ'
pci_nvme_create_cq create completion queue, addr=0x1000, cqid=1, vector=0, qsize=3, qflags=1, ien=1
pci_nvme_enqueue_req_completion cid 1 cqid 0 dw0 0x0 dw1 0x0 status 0x0
pci_nvme_irq_msix raising MSI-X IRQ vector 0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 2
pci_nvme_mmio_doorbell_sq sqid 0 new_tail 3
pci_nvme_admin_cmd cid 2 sqid 0 opc 0x1 opname 'NVME_ADM_CMD_CREATE_SQ'
pci_nvme_create_sq create submission queue, addr=0x2000, sqid=1, cqid=1, qsize=3, qflags=1
pci_nvme_enqueue_req_completion cid 2 cqid 0 dw0 0x0 dw1 0x0 status 0x0
pci_nvme_irq_msix raising MSI-X IRQ vector 0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 3
"""
STARTED = START.count("\n")


def seen(text: str, start: str = START, *, complete: bool = False) -> Monitor:
    monitor = Monitor(complete=complete)
    read_log([(start + text).encode()], monitor.handlers)
    return monitor


def ring(tail: int, sqid: int = 1) -> str:
    return f"pci_nvme_mmio_doorbell_sq sqid {sqid} new_tail {tail}\n"


def release(head: int) -> str:
    return f"pci_nvme_mmio_doorbell_cq cqid 1 new_head {head}\n"


def fetch(cid: int, sqid: int = 1) -> str:
    return f"pci_nvme_io_cmd cid {cid} nsid 0x1 sqid {sqid} opc 0x2 opname 'NVME_NVM_CMD_READ'\n"


def finish(cid: int) -> str:
    return f"pci_nvme_enqueue_req_completion cid {cid} cqid 1 dw0 0x0 dw1 0x0 status 0x0\n"


IRQ = "pci_nvme_irq_msix raising MSI-X IRQ vector 0\n"
ROUND = ring(1) + fetch(7) + finish(7) + IRQ + release(1)

TRIPS = [
    ("sq.fetched-early", ring(1) + fetch(7) + fetch(8)),
    ("sq.cid-in-use", ring(2) + fetch(7) + fetch(7)),
    ("cq.unknown-command", ring(1) + fetch(7) + finish(8)),
    ("cq.unknown-command", ring(1) + fetch(7) + finish(7) + finish(7)),
    ("doorbell.queue", "pci_nvme_ub_db_wr_invalid_sq tail doorbell of no SQ, sqid=9\n"),
    ("doorbell.queue", "pci_nvme_ub_db_wr_invalid_cq head doorbell of no CQ, cqid=9\n"),
    ("doorbell.value", "pci_nvme_ub_db_wr_invalid_sqtail x, sqid=1, new_head=4\n"),
    ("doorbell.value", "pci_nvme_ub_db_wr_invalid_cqhead x, cqid=1, new_head=4\n"),
    ("doorbell.aligned", "pci_nvme_ub_db_wr_misaligned x, offset=0x1002\n"),
    ("sq.tail", ring(3) + ring(2)),
    ("cq.head", release(1)),
    ("cq.head", ROUND + release(2)),
    ("registers.admin-queue-enabled", "pci_nvme_mmio_aqattr wrote x attributes=0x70007\n"),
    ("registers.admin-queue-enabled", "pci_nvme_mmio_asqaddr wrote x address=0x1000\n"),
    (
        "registers.admin-queue-enabled",
        "pci_nvme_mmio_acqaddr_hi wrote x, half=0x0, new_address=0x0\n",
    ),
    ("interrupts.mask-with-msix", "pci_nvme_ub_mmiowr_intmask_with_msix words\n"),
    ("transfer.prp-offset", ring(1) + fetch(7) + "pci_nvme_err_invalid_prp2_align x: 0x1004\n"),
    ("transfer.prp-offset", ring(1) + fetch(7) + "pci_nvme_err_invalid_prplist_ent x: 0x1004\n"),
    ("registers.admin-queue-base", "pci_nvme_err_startfail_asq_misaligned x: 0x1010\n"),
    ("registers.admin-queue-size", "pci_nvme_err_startfail_acqent_sz_zero words\n"),
    ("registers.page-size", "pci_nvme_err_startfail_page_too_large x, log2size=17, max=16\n"),
    ("registers.page-size", "pci_nvme_err_startfail_page_too_small x, log2size=11, min=12\n"),
]


@pytest.mark.parametrize(("rule", "text"), TRIPS)
def test_a_breach_is_found_with_its_line(rule: str, text: str) -> None:
    monitor = seen(text, complete=True)
    (finding,) = monitor.findings
    assert (finding.rule, finding.party) == (rule, RULES[rule].party)
    assert finding.evidence[-1] == (START + text).count("\n")
    assert judge(monitor, rest=False).verdict == RULES[rule].party


@pytest.mark.parametrize("text", ["", ROUND, ROUND + ring(2) + fetch(7) + finish(7) + IRQ])
def test_a_sound_run_has_none(text: str) -> None:
    monitor = seen(text)
    assert monitor.findings == []
    assert judge(monitor, rest=False).verdict == "clean"


WITHOUT_BEGINNING = [fetch(7) + fetch(8), finish(7), fetch(7) + finish(8), release(3) + release(1)]
WITHOUT_BEGINNING += [ring(3) + ring(2), "pci_nvme_mmio_aqattr wrote x attributes=0x70007\n"]


@pytest.mark.parametrize("text", WITHOUT_BEGINNING)
def test_nothing_is_found_where_the_beginning_is_missing(text: str) -> None:
    assert seen(text, start="").findings == []


@pytest.mark.parametrize(
    ("text", "word", "states"),
    [
        (ring(1), "device", ["rung"]),
        (ring(1) + fetch(7), "device", ["fetched"]),
        (ring(1) + fetch(7) + finish(7), "device", ["finished"]),
        (ring(1) + fetch(7) + finish(7) + IRQ, "undecided", ["posted"]),
        (ROUND, "clean", []),
        # What a host may have reaped and not released yet is no excuse for not fetching.
        (ring(2) + fetch(7) + finish(7) + IRQ, "device", ["posted", "rung"]),
    ],
)
def test_who_has_the_ball_at_rest(text: str, word: str, states: list[str]) -> None:
    verdict = judge(seen(text), rest=True)
    assert verdict.verdict == word
    assert [part.state for part in verdict.stuck] == states


def test_an_interrupt_is_of_the_queue_that_has_its_vector() -> None:
    two = START.replace("vector=0", "vector=1")
    other = "pci_nvme_enqueue_req_completion cid 9 cqid 0 dw0 0x0 dw1 0x0 status 0x0\n"
    admin = "pci_nvme_mmio_doorbell_sq sqid 0 new_tail 4\n"
    admin += "pci_nvme_admin_cmd cid 9 sqid 0 opc 0x6 opname 'x'\n"
    text = ring(1) + fetch(7) + admin + finish(7) + other
    # The last that finished is the admin command, and CQ 1 says that it has posted.
    verdict = judge(seen(text + IRQ.replace("vector 0", "vector 1"), start=two), rest=True)
    assert [(part.sqid, part.state) for part in verdict.stuck] == [(0, "finished"), (1, "posted")]
    # Both have the vector: neither is said not to have posted.
    verdict = judge(seen(text + IRQ), rest=True)
    assert [part.state for part in verdict.stuck] == ["posted", "posted"]


def test_a_full_completion_queue_is_for_the_host_to_empty() -> None:
    text = ring(3) + fetch(1) + fetch(2) + fetch(3)
    text += finish(1) + finish(2) + finish(3) + IRQ + ring(0) + fetch(4) + finish(4) + ring(1)
    verdict = judge(seen(text), rest=True)
    assert verdict.verdict == "undecided"
    assert [(part.state, part.ball) for part in verdict.stuck] == [
        ("posted", ["driver", "platform"]),
        ("finished", ["driver", "platform"]),
        ("rung", ["driver", "platform"]),
    ]
    assert judge(seen(text + release(3)), rest=True).verdict == "device"


def test_a_parked_event_request_does_not_make_a_full_cq_the_devices() -> None:
    def admin(cid: int, opcode: int) -> str:
        return f"pci_nvme_admin_cmd cid {cid} sqid 0 opc {opcode:#x} opname 'x'\n"

    text = ring(4, 0) + admin(9, 0xC) + "pci_nvme_aer cid 9\n"
    for cid in range(7):  # as many as the admin CQ holds
        text += (
            ring((5 + cid) % 8, 0) + admin(cid, 6) + finish(cid).replace("cqid 1", "cqid 0") + IRQ
        )
    verdict = judge(seen(text + ring(4, 0)), rest=True)
    assert [(part.state, part.count, part.ball) for part in verdict.stuck] == [
        ("posted", 7, ["driver", "platform"]),
        ("rung", 1, ["driver", "platform"]),
    ]
    assert verdict.verdict == "undecided"


def test_a_queue_with_an_impossible_tail_is_the_drivers() -> None:
    bad = "pci_nvme_ub_db_wr_invalid_sqtail x, sqid=1, new_head=4\n"
    verdict = judge(seen(ring(1) + bad), rest=True)
    assert verdict.verdict == "driver" and verdict.stuck[0].state == "rung"
    # QEMU's device ignores such a doorbell: what it fetches afterwards it owes. Whether it stopped
    # because of that doorbell nobody can tell.
    verdict = judge(seen(ring(2) + bad + fetch(7) + finish(7) + IRQ + release(1)), rest=True)
    assert verdict.stuck[0].ball == ["device"] and verdict.verdict == "undecided"
    assert "the driver broke a rule before" in verdict.notes[0]


def test_a_breach_decides_where_the_ball_does_not() -> None:
    text = ring(1) + fetch(7) + finish(7) + IRQ  # posted: the driver's, or the platform's
    assert judge(seen(text), rest=True).verdict == "undecided"
    bad = "pci_nvme_ub_db_wr_invalid_cqhead x, cqid=1, new_head=4\n"
    assert judge(seen(text + bad), rest=True).verdict == "driver"


def test_nothing_is_owed_by_a_controller_that_has_failed() -> None:
    verdict = judge(seen(ring(1) + "pci_nvme_err_cfs words\n"), rest=True)
    assert verdict.verdict == "undecided" and "CSTS.CFS" in verdict.notes[0]
    reset = "pci_nvme_mmio_stopped words\npci_nvme_mmio_start_success words\n"
    assert judge(seen("pci_nvme_err_cfs words\n" + reset), rest=True).verdict == "clean"


def test_a_reset_forgets_everything() -> None:
    text = ROUND + "pci_nvme_mmio_stopped cleared controller enable bit\n"
    verdict = judge(seen(text), rest=True)
    assert (verdict.verdict, verdict.stuck) == ("clean", [])


def test_a_queue_whose_creation_failed_is_none() -> None:
    failed = START.replace("cid 2 cqid 0 dw0 0x0 dw1 0x0 status 0x0", "cid 2 cqid 0 status 0x4101")
    assert 1 not in seen("", start=failed).sqs
    assert 1 in seen("").sqs


def test_a_parked_event_request_is_owed_nothing() -> None:
    text = "pci_nvme_mmio_doorbell_sq sqid 0 new_tail 4\n"
    text += "pci_nvme_admin_cmd cid 9 sqid 0 opc 0xc opname 'x'\npci_nvme_aer cid 9\n"
    verdict = judge(seen(text), rest=True)
    assert (verdict.verdict, verdict.in_flight) == ("clean", 0)


SHADOWS = """\
pci_nvme_mmio_doorbell_sq sqid 0 new_tail 4
pci_nvme_admin_cmd cid 3 sqid 0 opc 0x7c opname 'NVME_ADM_CMD_DBBUF_CONFIG'
pci_nvme_dbbuf_config dbs_addr=0x3000 eis_addr=0x4000
pci_nvme_enqueue_req_completion cid 3 cqid 0 dw0 0x0 dw1 0x0 status 0x0
pci_nvme_irq_msix raising MSI-X IRQ vector 0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 4
"""


@pytest.mark.parametrize(
    "shadow",
    [
        "pci_nvme_update_sq_tail sqid 1 new_tail 2\n",
        "pci_nvme_shadow_doorbell_sq sqid 1 new_shadow_doorbell 2\n",
    ],
)
def test_with_shadow_doorbells_the_shadow_counts(shadow: str) -> None:
    assert len(seen(SHADOWS + shadow).sqs[1].rung) == 2
    late = shadow + fetch(1) + fetch(2) + ring(1)  # a posted write that is older than the store
    verdict = judge(seen(SHADOWS + late), rest=True)
    assert [part.state for part in verdict.stuck] == ["fetched"]


def test_shadows_are_looked_at_after_a_reset_only_when_they_are_configured_again() -> None:
    reset = "pci_nvme_mmio_stopped cleared controller enable bit\n" + START
    look = "pci_nvme_update_sq_tail sqid 1 new_tail 0\n"
    assert seen(SHADOWS + look + reset + SHADOWS + look).findings == []
    assert seen(reset + look).findings == []  # they may have been configured before the log begins
    (finding,) = seen(SHADOWS + look + reset + look).findings
    assert (finding.rule, finding.party) == ("reset.shadows-kept", "device")


def test_what_was_stored_and_not_rung_does_not_show() -> None:
    verdict = judge(seen(SHADOWS), rest=True)
    assert verdict.verdict == "undecided" and "dbcs=off" in verdict.notes[0]
    assert judge(seen(SHADOWS), rest=False).verdict == "clean"


def test_a_queue_of_a_cut_log_may_have_any_completion_queue() -> None:
    text = fetch(7, sqid=3) + finish(7) + IRQ + release(1)  # SQ 3 on CQ 1
    verdict = judge(seen(text, start=""), rest=True)
    assert (verdict.verdict, verdict.stuck) == ("clean", [])


def test_a_completion_that_may_be_of_two_queues_accuses_nobody() -> None:
    text = fetch(7, sqid=3) + fetch(7, sqid=4) + finish(7) + IRQ + release(1)
    verdict = judge(seen(text, start=""), rest=True)
    assert verdict.verdict == "undecided" and "in line 3" in " ".join(verdict.notes)
    assert judge(seen(text, start=""), rest=False).verdict == "clean"


def test_entries_of_a_queue_whose_size_is_not_known_are_fetched_in_whatever_slot() -> None:
    def entry(slot: int) -> str:
        words = " ".join(f"dw{number} 0x0" for number in range(16))
        return f"pci_nvme_sqe sqid 0 slot {slot} {words}\n"

    begin = "pci_nvme_mmio_start_success setting controller enable bit succeeded\n"
    text = "".join(ring(slot + 1, 0) + entry(slot) + fetch(slot, 0) for slot in range(3))
    text = text.replace("io_cmd", "admin_cmd").replace(" nsid 0x1", "")
    cut, whole = seen(text, begin), seen(text.replace("slot 2", "slot 3"), complete=True)
    assert cut.findings == [] and len(cut.sqs[0].flight) == 3
    assert "sq.fetched-early" in {finding.rule for finding in whole.findings}


def test_the_first_look_at_a_shadow_is_no_new_entry() -> None:
    looks = "pci_nvme_update_sq_tail sqid 1 new_tail {}\n"
    text = looks.format(3) + fetch(7) + finish(7) + IRQ + release(1)
    begins_in_the_middle = seen(fetch(5) + finish(5) + IRQ + release(0) + text, start="")
    assert judge(begins_in_the_middle, rest=True).stuck == []
    rung = seen(looks.format(2) + text, start="")
    assert len(rung.sqs[1].rung) == 0
    assert [
        part.state for part in judge(seen(looks.format(2) + looks.format(3), ""), rest=True).stuck
    ] == ["rung"]


def test_whatever_is_taken_is_handled() -> None:
    assert {taken.handler for taken in TAKEN.values()} <= Monitor().handlers.keys()


@pytest.mark.parametrize(
    "line",
    [
        ring(10**18),
        ring(1).replace("new_tail 1", f"new_tail {'9' * 5000}"),
        ring(1, sqid=10**9),
        "pci_nvme_ub_db_wr_invalid_sqtail tail outside the SQ, sqid=1000000000, new_head=1\n",
        release(10**18),
        fetch(10**9),
        fetch(1, sqid=10**9),
        finish(10**9),
    ],
)
def test_numbers_that_cannot_be_take_no_memory(line: str) -> None:
    monitor = Monitor()
    counts = read_log([(START + line * 3).encode()], monitor.handlers)
    assert counts.damaged == [STARTED + 1, STARTED + 2, STARTED + 3]
    assert len(monitor.sqs) == len(monitor.cqs) == 2
    assert monitor.findings == [] and judge(monitor, rest=True).verdict == "clean"


def test_a_queue_of_impossible_size_is_not_made() -> None:
    start = START.replace("qsize=3", f"qsize={10**18}")
    monitor = seen(ring(60_000) + ring(0), start=start)
    assert not monitor.sqs[1].from_start and len(monitor.sqs[1].rung) <= 0xFFFF


def test_what_is_kept_of_a_long_log_is_bounded() -> None:
    rings = "".join(ring(tail) for tail in (60_000, 0) * 20)
    assert len(seen(rings, start="").sqs[1].rung) <= 0xFFFF
    rounds = "".join(fetch(7) + finish(7) + IRQ for _ in range(70_000))
    assert len(seen(rounds, start="").cqs[1].posted) <= 0xFFFF


def test_several_devices_in_one_log_are_noticed() -> None:
    monitor = seen(START, start=START)
    assert monitor.twice == (3, 25)


def test_a_finding_of_an_earlier_driver_is_said_to_be_one() -> None:
    early = START + ROUND + release(1) + "pci_nvme_mmio_stopped cleared controller enable bit\n"
    verdict = judge(seen(START, early), rest=False)
    said = " ".join(" ".join(verdict_lines(verdict, rest=False)).split())
    again = early.count("\n") + 3
    assert f"before line {again} enables the controller again: firmware, perhaps" in said
    last = judge(seen(ROUND + release(1)), rest=False)
    assert "firmware" not in " ".join(verdict_lines(last, rest=False))
