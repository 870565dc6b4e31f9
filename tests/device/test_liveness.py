"""No queue size, binding, or order of valid doorbells, completions and steps strands a command.

The host here is legal and nothing more: it rings late, keeps completion queue entries for as long
as it likes, and over-commits a submission queue as far as the last SQ Head that it was told allows
(QEMU issue 2388 is a controller that strands the commands of such a host). With shadow doorbells it
writes a doorbell only if the EventIdx asks for it, and the device takes steps between its store and
its look at the EventIdx.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelab.device.controller import Step
from nvmelab.spec.commands import Completion
from nvmelab.spec.nvm import Flush, Read
from tests.device.conftest import RAM, Bench, HostCq, HostSq, ManualWorker

SIZES = [2, 3, 4, 5, 6, 7, 8, 9, 16]


class Sq:
    """A submission queue, and what the host may believe of it."""

    def __init__(self, ring: HostSq) -> None:
        self.ring = ring
        self.known_head = 0
        """The SQHD of the completion that was reaped last."""
        self.next_cid = 0
        self.written: set[int] = set()
        """CIDs that are in the ring and not rung."""
        self.outstanding: set[int] = set()
        """CIDs that were rung and have no reaped completion."""
        self.rung = 0
        self.consumed = 0
        """Entries that the SQHDs add up to."""

    @property
    def full(self) -> bool:
        return (self.ring.tail + 1) % self.ring.entries == self.known_head

    def write(self, *, slow: bool) -> None:
        cid, self.next_cid = self.next_cid, (self.next_cid + 1) % 0x10000
        self.ring.put(Flush(cid=cid, nsid=1) if slow else Read(cid=cid, nsid=1, prp1=RAM))
        self.written.add(cid)

    def ring_bell(self) -> None:
        self.rung += len(self.written)
        self.outstanding |= self.written
        self.written.clear()
        self.ring.ring()

    def completed(self, entry: Completion, fetched: int) -> None:
        """Judge one completion. `fetched` is how many entries the device has taken so far."""
        assert entry.status == 0
        assert entry.cid in self.outstanding, f"completed twice, or never submitted: {entry}"
        self.outstanding.remove(entry.cid)
        # The host never runs over the head it knows, so the step is less than a round; one that
        # goes back looks like one that passes what was fetched.
        self.consumed += (entry.sqhd - self.known_head) % self.ring.entries
        assert self.consumed <= fetched, f"SQHD went back, or past what was fetched: {entry}"
        self.known_head = entry.sqhd


class Cq:
    """A completion queue; what was posted to it and not released must stay as it is."""

    def __init__(self, ring: HostCq) -> None:
        self.ring = ring
        self.kept: dict[int, Completion] = {}
        """By slot: entries that were seen posted, and are not released."""
        self.scan, self.phase = 0, 1
        self.released = 0

    def look(self) -> None:
        for slot, entry in self.kept.items():
            assert self.ring.entry(slot) == entry, "overwritten before it was released"
        while (entry := self.ring.entry(self.scan)).phase == self.phase:
            assert self.scan not in self.kept
            self.kept[self.scan] = entry
            self.scan += 1
            if self.scan == self.ring.entries:
                self.scan, self.phase = 0, self.phase ^ 1
        assert len(self.kept) < self.ring.entries, "more entries than the queue can hold"

    def release(self) -> None:
        while self.released != self.ring.head:
            del self.kept[self.released]
            self.released = (self.released + 1) % self.ring.entries
        self.ring.release()


class Lab:
    """Host and device, an action at a time; every invariant is checked after each."""

    def __init__(
        self,
        sq_sizes: list[int],
        cq_sizes: list[int],
        binding: list[int],
        outstanding_max: int | None = None,
        *,
        shadow: bool = False,
    ) -> None:
        self.worker = ManualWorker()
        self.bench = Bench(
            worker=self.worker,
            ram=1 << 18,
            queue_entries=16,
            io_queues=4,
            vectors=5,
            outstanding_max=outstanding_max,
        )
        self.bench.enable()
        if shadow:
            self.bench.use_shadow()
        self.bench.between = self._between
        self.meanwhile = 0
        """Steps of the device between the host's store to a shadow and what it does then."""
        self.bench.allocate(4096)
        self.cqs = [
            Cq(self.bench.create_cq(qid, entries=size)) for qid, size in enumerate(cq_sizes, 1)
        ]
        self.sqs = [
            Sq(self.bench.create_sq(qid, entries=size, cq=self.cqs[at % len(cq_sizes)].ring))
            for qid, (size, at) in enumerate(zip(sq_sizes, binding, strict=True), 1)
        ]
        self.outstanding_max = outstanding_max
        self.fetched: Counter[int] = Counter()
        self.finished: Counter[int] = Counter()
        self.bench.traced()

    # What the host does.

    def submit(self, sq: Sq, count: int, *, slow: bool) -> None:
        for _ in range(count):
            if not sq.full:
                sq.write(slow=slow)

    def reap(self, cq: Cq, limit: int | None) -> None:
        cq.look()
        for entry in cq.ring.reap(limit, release=False):
            self.sqs[entry.sqid - 1].completed(entry, self.fetched[entry.sqid])
            self.finished[entry.sqid] += 1

    # What the device does.

    def run(self) -> None:
        left = self.bench.run()
        assert left or self.bench.enabled() == [], "run() said that nothing is left"

    def step(self, number: int) -> None:
        if steps := self.bench.enabled():
            self.bench.step(*steps[number % len(steps)])

    def _between(self) -> None:
        for number in range(self.meanwhile):
            self.step(number)

    def storage(self, number: int = 0) -> None:
        if self.worker.waiting:
            self.worker.release(number % self.worker.held())

    # What must hold.

    def check(self) -> None:
        for _, values in self.bench.traced("io_cmd"):
            assert isinstance(values[2], int)
            self.fetched[values[2]] += 1
        for cq in self.cqs:
            cq.look()
        for sq in self.sqs:
            qid = sq.ring.qid
            assert self.fetched[qid] <= sq.rung, "fetched more than was rung"
            posted = self.finished[qid] + sum(
                entry.sqid == qid
                for cq in self.cqs
                for slot, entry in cq.kept.items()
                if self._unreaped(cq, slot)
            )
            limit = self.outstanding_max or sq.ring.entries
            assert self.fetched[qid] - posted <= limit, "more under way than allowed"
        if self.bench.enabled() or self.worker.waiting or any(cq.kept for cq in self.cqs):
            return
        stuck = {sq.ring.qid: sq.outstanding for sq in self.sqs if sq.outstanding}
        assert not stuck, f"nothing is left to do, and these wait: {stuck}"

    @staticmethod
    def _unreaped(cq: Cq, slot: int) -> bool:
        return (slot - cq.ring.head) % cq.ring.entries < (cq.scan - cq.ring.head) % cq.ring.entries

    def act(self, action: int) -> None:
        """One action of the host or the device, chosen by a number of 14 bits."""
        kind, which, count = action & 7, action >> 3 & 3, action >> 5 & 0x7F
        self.meanwhile = action >> 12
        sq, cq = self.sqs[which % len(self.sqs)], self.cqs[which % len(self.cqs)]
        match kind:
            case 0:
                self.submit(sq, 1 + count % 16, slow=bool(count & 16))
                sq.ring_bell()
            case 1:
                self.submit(sq, 1 + count % 3, slow=bool(count & 16))
            case 2:
                sq.ring_bell()
            case 3:
                self.reap(cq, (None, 1, 2)[count % 3])
                if count & 32:
                    cq.release()
            case 4:
                cq.release()
            case 5:
                self.storage(count)
            case 6:
                self.step(count)
            case _:
                self.run()
        self.check()

    def drain(self) -> None:
        """The host rings and reaps everything and then waits. Everything must complete."""
        self.meanwhile = 0
        for sq in self.sqs:
            sq.ring_bell()
        for _ in range(1000):
            self.bench.settle()
            self.check()
            self.storage()
            for cq in self.cqs:
                self.reap(cq, None)
                cq.release()
            if not (self.bench.enabled() or self.worker.waiting):
                break
        self.check()
        assert [sq.outstanding for sq in self.sqs] == [set()] * len(self.sqs)


size = st.sampled_from(SIZES)
actions = st.lists(st.integers(0, (1 << 14) - 1), max_size=80)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(size, st.integers(0, 2)), min_size=1, max_size=3),
    st.lists(size, min_size=1, max_size=3),
    st.sampled_from([None, None, 1, 2, 20]),
    st.booleans(),
    actions,
)
def test_no_order_of_actions_strands_a_command(
    sqs: list[tuple[int, int]],
    cqs: list[int],
    outstanding_max: int | None,
    shadow: bool,
    order: list[int],
) -> None:
    entries = [entries for entries, _ in sqs]
    lab = Lab(entries, cqs, [at for _, at in sqs], outstanding_max, shadow=shadow)
    for action in order:
        lab.act(action)
    lab.drain()


@settings(max_examples=80)
@given(size, size, st.booleans(), st.randoms(use_true_random=False))
def test_long_random_run_on_one_pair_strands_no_command(
    sq_entries: int, cq_entries: int, shadow: bool, random: object
) -> None:
    lab = Lab([sq_entries], [cq_entries], [0], shadow=shadow)
    getrandbits = random.getrandbits  # type: ignore[attr-defined]
    for _ in range(300):
        lab.act(getrandbits(14))
    lab.drain()


def over_commit(
    entries: int, cq_entries: int, *, single_steps: bool = False, shadow: bool = False
) -> Lab:
    """A burst, one slow completion that says "all fetched", a second burst, and silence."""
    lab = Lab([entries], [cq_entries], [0], shadow=shadow)
    (sq,), (cq,) = lab.sqs, lab.cqs

    def device() -> None:
        if not single_steps:
            lab.bench.settle()
        while lab.bench.enabled():
            lab.step(0)
        lab.check()

    for _ in range(2):
        lab.submit(sq, entries, slow=True)
        sq.ring_bell()
        device()
        lab.storage()
        device()
        lab.reap(cq, None)
        cq.release()
        device()
    while lab.worker.waiting:  # from here on the host submits nothing more
        lab.storage()
        device()
        lab.reap(cq, None)
        cq.release()
        device()
    return lab


@pytest.mark.parametrize("single_steps", [False, True])
@pytest.mark.parametrize("entries", range(3, 9))
def test_over_committed_queue_is_finished_after_the_last_doorbell(
    entries: int, single_steps: bool
) -> None:
    lab = over_commit(entries, entries, single_steps=single_steps)
    assert (lab.finished[1], lab.sqs[0].outstanding) == (2 * (entries - 1), set())


@pytest.mark.parametrize("cq_entries", [2, 16])
@pytest.mark.parametrize("entries", range(2, 9))
def test_over_committed_queue_is_finished_with_shadow_doorbells(
    entries: int, cq_entries: int
) -> None:
    lab = over_commit(entries, cq_entries, shadow=True)
    assert (lab.finished[1], lab.sqs[0].outstanding) == (2 * (entries - 1), set())


@pytest.mark.parametrize("single_steps", [False, True])
@pytest.mark.parametrize("entries", range(3, 9))
def test_over_committed_queue_is_finished_when_its_completion_queue_has_16_entries(
    entries: int, single_steps: bool
) -> None:
    lab = over_commit(entries, 16, single_steps=single_steps)
    assert (lab.finished[1], lab.sqs[0].outstanding) == (2 * (entries - 1), set())


@pytest.mark.parametrize("entries", range(3, 9))
def test_over_committed_queue_is_finished_without_any_completion_queue_doorbell(
    entries: int,
) -> None:
    lab = Lab([entries], [16], [0])
    (sq,), (cq,) = lab.sqs, lab.cqs
    lab.submit(sq, entries, slow=True)
    sq.ring_bell()
    lab.bench.settle()
    lab.storage()
    lab.bench.settle()
    lab.check()
    lab.reap(cq, None)
    lab.submit(sq, entries, slow=True)
    sq.ring_bell()
    for _ in range(2 * entries):
        lab.bench.settle()
        lab.storage()
    lab.bench.settle()
    lab.check()
    lab.reap(cq, None)
    assert (lab.finished[1], sq.outstanding) == (2 * (entries - 1), set())


@pytest.mark.parametrize("entries", range(3, 9))
def test_device_holds_no_more_commands_of_an_over_committed_queue_than_it_has_entries(
    entries: int,
) -> None:
    lab = Lab([entries], [16], [0])
    (sq,), (cq,) = lab.sqs, lab.cqs
    lab.submit(sq, entries, slow=True)
    sq.ring_bell()
    lab.bench.settle()
    lab.storage()
    lab.bench.settle()
    lab.check()
    lab.reap(cq, None)
    lab.submit(sq, entries, slow=True)
    sq.ring_bell()
    lab.bench.settle()
    assert len(lab.worker.waiting) == entries
    assert lab.bench.enabled() == [] and Step("fetch", 1) not in lab.bench.enabled()


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("entries", SIZES)
def test_burst_and_silence_through_a_completion_queue_of_two_entries(
    entries: int, shadow: bool
) -> None:
    lab = Lab([entries, entries], [2], [0, 0], shadow=shadow)
    for sq in lab.sqs:
        lab.submit(sq, entries, slow=False)
        sq.ring_bell()
    lab.drain()
    assert lab.finished == {1: entries - 1, 2: entries - 1}
