"""Snapshots of a controller whose commands stand where a test has put them."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from nvmelab import snapshot
from nvmelab.check.ball import Ball
from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import judge
from nvmelab.limits import CHECK_REST_S, CONTROL_ANSWER_BYTES_MAX, SNAPSHOT_QUEUES_MAX
from nvmelab.snapshot import Cq, Observer, Oldest, Snapshot, Sq, check_of, cut
from nvmelab.spec.admin import AsyncEventRequest, DeleteIoSq
from nvmelab.spec.nvm import Flush, Read
from tests.device.conftest import NO_RAM, Bench, ManualWorker
from tests.test_standing import finish, over_committed

REST_NS = int(CHECK_REST_S * 1e9)


class Watched:
    """A bench whose clock a test sets, and who looks at it."""

    def __init__(self, bench: Bench | None = None, **config: Any) -> None:
        self.worker = ManualWorker()
        self.bench = bench or Bench(worker=self.worker, **config)
        self.now = 1_000
        self.bench.controller.clock = lambda: self.now
        if bench is None:
            self.bench.enable()
        self.observer = Observer(self.bench.controller)

    def sq(self, qid: int = 1) -> Sq:
        (found,) = [sq for sq in self.observer.queues()[0] if sq.id == qid]
        return found

    def cq(self, qid: int = 1) -> Cq:
        (found,) = [cq for cq in self.observer.queues()[1] if cq.id == qid]
        return found


def test_an_idle_queue_waits_for_nobody() -> None:
    watched = Watched()
    watched.bench.create_pair(1, entries=16)
    sq, cq = watched.sq(), watched.cq()
    assert (sq.entries, sq.head, sq.tail, sq.limit, sq.outstanding) == (16, 0, 0, 16, 0)
    assert (cq.entries, cq.head, cq.tail, cq.phase, cq.vector) == (16, 0, 0, 1, 1)
    assert (sq.oldest, sq.ball, sq.stuck, cq.ball, cq.stuck) == (None, None, False, None, False)


def test_commands_are_told_by_where_they_stand_and_the_oldest_by_its_age() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    for cid in (1, 2, 3):
        watched.now += 100
        sq.submit(Flush(cid=cid, nsid=1))
        watched.bench.settle()
    sq.submit(Read(cid=4, nsid=1))
    watched.now += 1000

    seen = watched.sq()
    assert (seen.rung, seen.fetched, seen.finished, seen.outstanding) == (1, 3, 0, 3)
    assert (seen.head, seen.tail, seen.total) == (3, 4, 3)
    assert seen.oldest == Oldest(1, "flush", "fetched", 1200)
    assert seen.ball and seen.ball.parties == ["device"]


def test_a_command_that_is_rung_and_not_fetched_is_read_from_its_slot() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    sq.submit(Read(cid=77, nsid=1), Flush(cid=78, nsid=1))
    assert watched.sq().oldest == Oldest(77, "read", "rung", None)


def test_a_command_that_waits_for_room_in_the_full_cq_is_the_hosts_to_release() -> None:
    watched = Watched()
    sq = watched.bench.create_sq(1, entries=8, cq=watched.bench.create_cq(1, entries=2))
    sq.submit(Read(cid=1, nsid=9), Read(cid=2, nsid=9))  # errors: done at once
    watched.bench.settle()
    watched.now += 50
    seen, cq = watched.sq(), watched.cq()
    assert (seen.finished, cq.full, cq.posted, cq.finished) == (1, True, 1, 1)
    assert seen.oldest == Oldest(2, "read", "finished", 50)
    assert seen.ball and seen.ball.parties == ["driver", "platform"]
    assert seen.ball.text == (
        "1 command is finished, not posted: release entries, or deliver the interrupt (the CQ is "
        "full)"
    )
    assert cq.ball and cq.ball.parties == seen.ball.parties
    assert cq.ball.text == (
        "1 completion is posted, not released: reap and release it, or deliver the interrupt"
    )


def test_a_parked_event_request_is_not_outstanding() -> None:
    watched = Watched()
    watched.bench.admin.submit(AsyncEventRequest(cid=5))
    watched.bench.settle()
    watched.now += 2 * REST_NS
    assert (watched.sq(0).outstanding, watched.sq(0).ball, watched.sq(0).stuck) == (0, None, False)


def test_what_has_not_moved_for_two_seconds_is_stuck_and_one_step_ends_that() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    sq.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1))
    watched.bench.settle()
    assert (watched.sq().still_ns, watched.sq().stuck) == (0, False)
    watched.now += REST_NS - 1
    assert not watched.sq().stuck
    watched.now += 1
    assert (watched.sq().still_ns, watched.sq().stuck) == (REST_NS, True)
    watched.worker.release()
    watched.bench.settle()
    assert (watched.sq().still_ns, watched.sq().stuck) == (0, False)


def test_while_the_guest_is_stopped_only_what_waits_for_no_driver_is_stuck() -> None:
    watched = Watched()
    taken = watched.bench.create_pair(1, entries=8)
    taken.submit(Read(cid=1, nsid=9))  # an error: done at once
    watched.bench.create_pair(2, entries=8).submit(Flush(cid=1, nsid=1))
    watched.bench.settle()
    watched.observer.queues()
    watched.now += REST_NS
    for stopped in (False, True):
        sqs, cqs, _ = watched.observer.queues(stopped=stopped)
        assert [sq.id for sq in sqs if sq.stuck] == [2]
        assert [cq.id for cq in cqs if cq.stuck and cq.id] == ([] if stopped else [1])


def test_a_queue_that_came_round_between_two_looks_has_moved() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=4)
    before = watched.sq()
    for cid in range(4):
        watched.bench.execute(Read(cid=cid, nsid=9), sq)
    watched.now += REST_NS
    after = watched.sq()
    assert (after.head, after.tail) == (before.head, before.tail) and after.total == 4
    assert (after.still_ns, watched.cq().still_ns) == (0, 0)


def test_posted_entries_that_nobody_releases_are_stuck_by_their_cq() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    sq.submit(Read(cid=1, nsid=9))
    watched.bench.settle()
    assert not watched.cq().stuck
    watched.now += REST_NS
    assert not watched.sq().stuck
    cq = watched.cq()
    assert cq.stuck and cq.ball and cq.ball.parties == ["driver", "platform"]
    sq.cq.reap()
    assert watched.cq().ball is None


def test_a_queue_is_still_beside_another_one_on_its_cq() -> None:
    watched = Watched()
    cq = watched.bench.create_cq(1, entries=8)
    busy = watched.bench.create_sq(1, entries=8, cq=cq)
    waiting = watched.bench.create_sq(2, entries=8, cq=cq)
    waiting.submit(Flush(cid=1, nsid=1))
    watched.bench.settle()
    watched.observer.queues()
    watched.now += REST_NS
    watched.bench.execute(Read(cid=1, nsid=9), busy)
    assert watched.sq(2).stuck and not watched.sq(1).stuck and watched.cq().still_ns == 0


def test_a_forgotten_queue_is_stuck_at_the_first_look() -> None:
    bench, sq, worker = over_committed("qemu-9.0")
    watched = Watched(bench)
    assert not watched.sq().stuck  # the storage is busy
    finish(bench, sq, worker, 4)
    seen = watched.sq()
    assert seen.stuck and seen.still_ns == 0
    assert seen.ball and seen.ball.parties == ["device"]
    assert "looks at this queue only when its tail is rung" in seen.ball.text
    sq.ring()
    bench.settle()
    assert not watched.sq().stuck


def stored_at(watched: Watched, index: int, value: int) -> None:
    """The host stores to a shadow, and does not ring."""
    bench = watched.bench
    assert bench.shadow is not None
    bench.memory.store_u32(bench.shadow + 4 * index, value)


def test_what_is_released_in_the_shadow_alone_is_released() -> None:
    watched = Watched()
    watched.bench.use_shadow()
    sq = watched.bench.create_pair(1, entries=8)
    watched.bench.execute(Read(cid=1, nsid=9), sq)
    watched.bench.settle()
    sq.submit(Read(cid=2, nsid=9), Read(cid=3, nsid=9))
    watched.bench.settle()
    assert watched.cq().posted == 2
    rings = watched.bench.rings
    sq.cq.reap()
    assert watched.bench.rings == rings and watched.bench.controller.cqs[1].head == 1
    watched.now += REST_NS
    seen = watched.cq()
    assert (seen.head, seen.posted, seen.ball, seen.stuck) == (3, 0, None, False)


def test_a_tail_that_is_stored_and_not_rung_is_the_hosts_matter() -> None:
    watched = Watched()
    watched.bench.use_shadow()
    sq = watched.bench.create_pair(1, entries=8)
    watched.bench.settle()
    sq.put(Read(cid=9, nsid=9))
    stored_at(watched, 2, sq.tail)
    seen = watched.sq()
    assert (seen.written, seen.rung, seen.tail, seen.stuck) == (1, 0, 0, False)
    assert seen.oldest == Oldest(9, "read", "written", None)
    assert seen.ball and seen.ball.parties == ["driver", "platform"]
    assert seen.ball.text == (
        "1 command is written, not rung: ring the tail doorbell, or deliver it"
    )
    watched.now += REST_NS
    assert watched.sq().stuck
    watched.bench.ring(2, sq.tail)
    watched.bench.settle()
    assert (watched.sq().written, watched.sq().total) == (0, 1)


def test_a_tail_that_the_device_looks_for_by_itself_is_as_good_as_rung() -> None:
    watched = Watched()
    watched.bench.use_shadow()
    sq = watched.bench.create_pair(1, entries=8)
    watched.bench.settle()
    sq.submit(Flush(cid=1, nsid=1))
    watched.bench.step("poll_sq", 1)  # now there is work, and the shadow is looked at after it
    sq.put(Flush(cid=2, nsid=1))
    stored_at(watched, 2, sq.tail)
    seen = watched.sq()
    assert (seen.written, seen.rung) == (0, 2)
    assert seen.ball and seen.ball.parties == ["device"]


def test_room_that_is_stored_and_not_rung_is_the_hosts_matter() -> None:
    watched = Watched()
    watched.bench.use_shadow()
    sq = watched.bench.create_sq(1, entries=8, cq=watched.bench.create_cq(1, entries=2))
    sq.submit(Read(cid=1, nsid=9), Read(cid=2, nsid=9))
    watched.bench.settle()
    sq.cq.reap(release=False)
    stored_at(watched, 3, 1)
    seen = watched.sq()
    assert (seen.finished, watched.cq().full) == (1, True)
    assert seen.ball and seen.ball.parties == ["driver", "platform"]
    watched.bench.ring(3, 1)
    watched.bench.settle()
    assert watched.sq().finished == 0


@pytest.mark.parametrize("index", [2, 3])
def test_an_impossible_value_in_a_shadow_is_left_for_the_device_to_find(index: int) -> None:
    watched = Watched()
    watched.bench.use_shadow()
    watched.bench.create_pair(1, entries=8)
    watched.bench.settle()
    stored_at(watched, index, 0xFFFF)
    assert (watched.sq().written, watched.sq().tail, watched.cq().head) == (0, 0, 0)


def test_an_impossible_tail_is_the_drivers() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    sq.submit(Flush(cid=1, nsid=1))
    sq.ring(0)  # back, before it is fetched
    assert watched.sq().ball == Ball(
        ["driver"],
        "1 command is rung, not fetched: delete the queue and create it (its tail doorbell "
        "cannot have that value)",
    )


def test_a_failed_controller_owes_nothing_that_anybody_could_name() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    sq.submit(Flush(cid=1, nsid=1))
    watched.bench.settle()
    watched.bench.controller.life.fatal()
    watched.observer.queues()
    watched.now += REST_NS
    seen = watched.sq()
    assert seen.stuck and seen.ball is None
    assert watched.observer.controller().failed


@pytest.mark.parametrize("what", ["bus master", "shutdown"])
def test_what_the_driver_has_taken_away_is_the_drivers(what: str) -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    if what == "bus master":
        watched.bench.bus_master(False)
    else:
        watched.bench.write_cc(en=1, shn=1)
        watched.bench.settle()
    sq.submit(Flush(cid=1, nsid=1))
    watched.bench.settle()
    seen = watched.sq()
    assert seen.rung == 1 and seen.ball and seen.ball.parties == ["driver"]


def test_a_deletion_that_waits_is_a_command_of_the_admin_queue() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    sq.submit(Flush(cid=1, nsid=1))
    watched.bench.settle()
    watched.bench.admin.submit(DeleteIoSq(cid=9, qid=1))
    watched.bench.settle()
    watched.now += 7
    assert watched.sq(0).oldest == Oldest(9, "delete io sq", "fetched", 7)
    ball = watched.sq(1).ball
    assert ball and ball.parties == ["device"] and "delete the queue" in ball.text


def test_an_entry_that_is_no_memory_any_more_is_not_read() -> None:
    watched = Watched()
    watched.bench.create_pair(1, entries=8).submit(Flush(cid=1, nsid=1))
    watched.bench.controller.sqs[1].base = NO_RAM
    assert watched.sq().oldest is None and watched.sq().rung == 1


def test_totals_are_the_statistics() -> None:
    watched = Watched()
    sq = watched.bench.create_pair(1, entries=8)
    buffer = watched.bench.allocate(4096)
    watched.bench.execute(Read(cid=1, nsid=1, nlb=8, prp1=buffer), sq)
    watched.bench.execute(Read(cid=2, nsid=9, nlb=8, prp1=buffer), sq)
    totals = watched.observer.totals()
    assert (totals.commands, totals.bytes, totals.errors) == (4, 4096, 1)
    assert totals.doorbells == watched.bench.rings == 8
    assert totals.interrupts == len(watched.bench.interrupts) == 4
    (read,) = [row for row in totals.by_command if row.command == "read"]
    assert (read.count, read.bytes, read.errors) == (2, 4096, 1)


def test_of_many_queues_those_on_which_something_waits_are_told() -> None:
    watched = Watched(io_queues=SNAPSHOT_QUEUES_MAX + 40, vectors=200)
    last = SNAPSHOT_QUEUES_MAX + 40
    for qid in range(1, last + 1):
        sq = watched.bench.create_pair(qid, entries=2)
    sq.submit(Flush(cid=1, nsid=1))
    sqs, cqs, left_out = watched.observer.queues()
    assert (len(sqs), len(cqs), left_out) == (SNAPSHOT_QUEUES_MAX, SNAPSHOT_QUEUES_MAX, 41)
    assert [sq.id for sq in sqs] == [*range(SNAPSHOT_QUEUES_MAX - 1), last]


def snapshot_of(watched: Watched) -> Snapshot:
    sqs, cqs, left_out = watched.observer.queues()
    return Snapshot(
        version=1, time_ns=watched.now, image=cut("x" * 5000), serial="s" * 20, device="nvmelab",
        guest=True, controller=watched.observer.controller(), sqs=sqs, cqs=cqs,
        sqs_left_out=left_out, totals=watched.observer.totals(), check=None,
    )  # fmt: skip


def test_the_largest_snapshot_is_an_answer() -> None:
    watched = Watched(io_queues=SNAPSHOT_QUEUES_MAX, vectors=200, ram=32 << 20)
    for qid in range(1, SNAPSHOT_QUEUES_MAX + 1):
        sq = watched.bench.create_sq(
            qid, entries=2000, cq=watched.bench.create_cq(qid, entries=2)
        )  # fmt: skip
        sq.put(Read(cid=65000, nsid=9))
        for cid in range(65001, 66900):
            sq.put(bytes([0xEE, 0]) + (cid & 0xFFFF).to_bytes(2, "little") + bytes(60))
        sq.ring()
    watched.bench.settle()
    seen = snapshot_of(watched)
    watched.now += 10**16
    seen = snapshot_of(watched)
    assert all(sq.ball and sq.oldest for sq in seen.sqs if sq.id)
    data = msgspec.json.encode(seen)
    assert 60_000 < len(data) < CONTROL_ANSWER_BYTES_MAX
    assert msgspec.json.decode(data, type=Snapshot) == seen


@pytest.mark.parametrize("seed", range(20))
def test_looking_changes_nothing_whatever_a_guest_does(seed: int) -> None:
    draw = random.Random(seed)
    watched = Watched()
    bench = watched.bench
    if seed % 2:
        bench.use_shadow(admin=True)
    for qid in (1, 2):
        bench.create_pair(qid, entries=draw.choice((2, 3, 8)))
    for _ in range(60):
        match draw.randrange(7):
            case 6 if bench.shadow:
                index = draw.randrange(6)
                bench.memory.store_u32(bench.shadow + 4 * index, draw.randrange(10))
            case 0:
                bench.ring(draw.randrange(8), draw.randrange(10))
            case 1:
                bench.write(0x14, draw.choice((0, 0x460001, 0x464001, 0x460002)))
            case 2:
                bench.bus_master(draw.random() < 0.8)
            case 3:
                for sq in bench.controller.sqs.values():
                    bench.memory.write(sq.base, draw.randbytes(64 * sq.size))
            case 4:
                watched.worker.release() if watched.worker.held() else None
            case _:
                bench.run()
        before = (bench.enabled(), [sq.save() for sq in bench.controller.sqs.values()])
        ram = bytes(bench.ram)
        data = msgspec.json.encode(snapshot_of(watched))
        assert msgspec.json.decode(data, type=Snapshot).sqs is not None
        assert before == (bench.enabled(), [sq.save() for sq in bench.controller.sqs.values()])
        assert ram == bench.ram
        watched.now += draw.randrange(10**9)


def test_a_text_is_cut_in_front_and_is_always_json() -> None:
    assert cut("a" * 300) == "a" * 300
    assert len(cut("a" * 301)) == 300 and cut("b" + "a" * 300).startswith("...a")
    assert msgspec.json.encode(cut("disk\udcff.img")) == b'"disk?.img"'


def test_a_verdict_is_told_in_a_line() -> None:
    live = LiveMonitor()
    assert check_of(judge(live.monitor, rest=False), 0) == snapshot.Check("clean", 0, 0, "")
    live.emit("ub_db_wr_invalid_sq", 7)
    told = check_of(judge(live.monitor, rest=False), 1)
    assert (told.verdict, told.findings) == ("driver", 1) and "driver: " in told.told
