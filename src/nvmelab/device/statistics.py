"""What a controller did, counted: for the summary at the end of a run and for SMART.

Latency is from the fetch of a command to the posting of its completion, in the nanoseconds of the
controller's clock, counted in buckets an eighth of a power of two wide.
"""

from __future__ import annotations

from nvmelab.limits import LATENCIES_KEPT
from nvmelab.spec.commands import AdminOpcode, NvmOpcode

_STEPS = 3  # bits of a latency below its highest that choose the bucket


class Counter:
    """What was counted for one opcode of one kind of queue."""

    __slots__ = ("_buckets", "_recent", "_worst_ns", "commands", "errors", "nbytes")

    def __init__(self) -> None:
        self.commands = 0
        self.nbytes = 0
        self.errors: dict[int, int] = {}
        """Completions by status field, for those that are not successful."""
        self._worst_ns = 0
        self._buckets: dict[int, int] = {}
        self._recent: list[int] = []
        """Latencies that are not in the buckets yet: a command should not pay for arithmetic."""

    def posted(self, status: int, nbytes: int, latency_ns: int) -> None:
        """Count one completion."""
        self.commands += 1
        self.nbytes += nbytes
        if status:
            self.errors[status] = self.errors.get(status, 0) + 1
        recent = self._recent
        recent.append(latency_ns)
        if len(recent) >= LATENCIES_KEPT:
            self._fold()

    def _fold(self) -> None:
        if not self._recent:
            return
        self._worst_ns = max(self._worst_ns, *self._recent)
        for latency_ns in self._recent:
            exponent = max(latency_ns.bit_length() - 1 - _STEPS, 0)
            bucket = exponent << _STEPS + 1 | latency_ns >> exponent
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._recent.clear()

    @property
    def latency(self) -> dict[int, int]:
        """Completions by bucket. Buckets are in the order of the latencies they hold."""
        self._fold()
        return self._buckets

    @property
    def worst_ns(self) -> int:
        """The longest latency; 0 if none was counted."""
        self._fold()
        return self._worst_ns

    @property
    def median_ns(self) -> int:
        """The middle of the bucket that holds the median latency, so within 7 % of it; 0 if none
        was counted."""
        latency = self.latency
        left = (sum(latency.values()) + 1) // 2
        for bucket in sorted(latency):
            left -= latency[bucket]
            if left <= 0:
                exponent, lead = bucket >> _STEPS + 1, bucket & (2 << _STEPS) - 1
                middle = (lead << exponent) + ((1 << exponent) >> 1)
                return min(middle, self._worst_ns)
        return 0


class Statistics:
    """Counters of one controller since it was made."""

    def __init__(self) -> None:
        self.admin: dict[int, Counter] = {}
        """By opcode. A parked Asynchronous Event Request counts when it completes, with no
        latency."""
        self.io: dict[int, Counter] = {}
        self.doorbells = 0
        """Doorbell writes, also such as are refused. Stores to shadows are none."""
        self.interrupts = 0
        self.error_events = 0
        """Entries of the error log, which a reset empties without starting their count again."""

    def counter(self, sqid: int, opcode: int) -> Counter:
        """The counter for `opcode` on that queue, made if there is none."""
        counters = self.io if sqid else self.admin
        counter = counters.get(opcode)
        if counter is None:
            counter = counters[opcode] = Counter()
        return counter

    def rows(self) -> list[tuple[str, Counter]]:
        """(name of the command, counter): I/O commands first, each group by opcode."""
        admin = [(AdminOpcode(opcode).label, self.admin[opcode]) for opcode in sorted(self.admin)]
        io = [(NvmOpcode(opcode).label, self.io[opcode]) for opcode in sorted(self.io)]
        return io + admin
