"""From the labels of a run to its story: the run is taken once more, and watched."""

from __future__ import annotations

from collections.abc import Sequence

from nvmelab.check.ball import STAGES
from nvmelab.device.queues import Request, SubmissionQueue
from nvmelab.explore.replay import Played, rule_text
from nvmelab.explore.setting import SCENARIOS, Setting, label_text
from nvmelab.explore.story import (
    Actor,
    Arrow,
    Cq,
    CqSlot,
    Moment,
    Pool,
    Sq,
    SqSlot,
    Story,
)
from nvmelab.explore.system import DRIVER_STEPS, Label, System
from nvmelab.explore.watch import Violation
from nvmelab.spec.registers import CQE_SIZE

GLOSSARY = {
    "doorbell": "A register of the device. The driver writes the new tail of a submission queue "
    "there, or the new head of a completion queue; the device learns of it by nothing else.",
    "rung": "Written into the submission queue and told of by the tail doorbell.",
    "SQHD": "SQ Head Pointer, a field of each completion: how far the device had fetched when it "
    "made the entry. The driver may use the slots before it again.",
    "phase tag": "A bit of each completion that changes its value with each round of the ring. By "
    "it the driver sees that an entry is new.",
    "request": "What a device keeps for a command from its fetch to the posting of its completion. "
    "A device has so many; while none is free it cannot fetch.",
    "scheduled": "The device has noted to look at this queue. Where a device looks at nothing that "
    "it has not noted, a queue that nobody notes is forgotten.",
    "hang": "Nothing is left to do that anybody owes, and a command has no completion.",
}


def letters(number: int) -> str:
    """The name of the command with this number, from 0: A to Z, then AA."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


def tell(setting: Setting, labels: Sequence[Label], *, shortest: bool = False) -> Story:
    """The story of a run that fails, or that does not: then its title says so."""
    teller = _Teller(setting.system())
    moments = [teller.moment(0, ("start", 0), "driver", "nothing is submitted yet", [])]
    violation = None
    for number, label in enumerate(labels, 1):
        moment, violation = teller.step(number, label)
        moments.append(moment)
        if violation:
            break
    played = Played(list(labels), 0, teller.system.ball() if not violation else None, violation)
    parameters: dict[str, str | int] = {
        "entries": setting.entries,
        "requests": teller.system.sq.limit,
        "commands": "any number" if setting.commands is None else setting.commands,
        "grain": setting.grain,
        "doorbells": setting.doorbells,
        "order": "the device always first" if setting.eager else "any",
    }
    if setting.fault:
        parameters["planted fault"] = setting.fault
    return Story(
        title=headline(played, len(moments) - 1),
        scenario=f"{setting.scenario}: {SCENARIOS[setting.scenario]}",
        device=f"{setting.device}: {teller.system.persona.text}",
        driver="trusts SQHD; " + ("polling" if setting.grain == "coarse" else "interrupt-driven"),
        parameters=parameters,
        result="violation" if violation else "hang",
        ball=played.party,
        owed=owed(played),
        why=why(teller.system, played),
        rule=rule_text(played.rule, played.party) if played.rule else "",
        shortest=shortest,
        moments=moments,
        glossary=GLOSSARY,
    )


def headline(played: Played, steps: int) -> str:
    """One line: what is wrong."""
    if played.violation:
        return f"Rule {played.violation.rule} broken at step {steps}: {played.violation.seen}"
    if not played.ball:
        return f"No hang after {steps} steps"
    number, stage = played.ball.number, played.ball.stage
    commands = "1 command" if number == 1 else f"{number} commands"
    return f"Hang after {steps} steps: {commands} {STAGES[stage]}"


def owed(played: Played) -> str:
    """What is stuck, and what should happen."""
    if played.violation:
        return played.violation.seen
    return played.ball.said if played.ball else "everything that was submitted was completed"


def why(system: System, played: Played) -> str:
    """Why it does not happen."""
    halves = system.controller.bottom_halves
    if not played.ball or played.ball.party != "device" or not halves:
        return ""
    standing = system.standing()
    rules = halves.rules
    text = "Nothing is scheduled, and this device looks at no queue that is not."
    if standing.rung:
        text += (
            " A submission queue is scheduled by its tail doorbell"
            + (" or by the head doorbell of a full CQ" if rules.full_cq_head_wakes_sqs else "")
            + ". When the last tail was rung no request was free; when one became free, nobody "
            "looked again. Only another command of the driver would wake it."
        )
    elif standing.finished:
        text += (
            " The completion queue was full when the commands finished, and has room now, but the "
            "head doorbell that made the room schedules nothing."
        )
    return text


class _Teller:
    """Takes the steps, and remembers which command is which."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._names: dict[int, str] = {}
        """By CID: the command that has it now."""
        self._count = 0
        self._sq_slots = [""] * system.entries
        self._cq_slots = [("", 0, 0)] * system.entries

    def _name(self, cid: int) -> str:
        return self._names.get(cid, f"CID {cid:#x}")

    def step(self, number: int, label: Label) -> tuple[Moment, Violation | None]:
        """Take a step and tell it."""
        system = self.system
        name = label[0]
        tail, head = system.host_sq.tail, system.sq.head
        cq_tail, cq_full = system.cq.tail, system.cq.full
        cq_head = system.host_cq.head
        before = set(system.host_sq.outstanding)
        flying = [token.cid for token in system.in_flight() if isinstance(token, Request)]
        empty = system.sq.head == system.sq.tail
        violation = None
        try:
            system.take(label)
        except Violation as caught:
            violation = caught
        arrows: list[Arrow] = []
        if name in DRIVER_STEPS or name == "deliver":
            for cid in system.host_sq.outstanding:
                if cid not in before:
                    self._names[cid] = letters(self._count)
                    self._count += 1
                    self._sq_slots[tail] = self._names[cid]
            text = self._driver_text(label, tail, cq_head, arrows)
            actor: Actor = "platform" if name == "deliver" else "driver"
        elif name == "complete":
            actor, text = "storage", f"finishes {self._name(flying[label[1]])}"
        elif name == "arrive":
            actor, text = "platform", "delivers the oldest doorbell write"
            arrows.append(Arrow("driver", "device", "doorbell"))
        else:
            actor = "device"
            text = self._device_text(
                label, head, cq_tail, empty, cq_full, arrows, violation=violation is not None
            )
        if violation:
            text += f": {violation.seen}"
        return self.moment(number, label, actor, text, arrows), violation

    def _driver_text(self, label: Label, tail: int, cq_head: int, arrows: list[Arrow]) -> str:
        system, name = self.system, label[0]
        letter, sqhd, phase = self._cq_slots[cq_head]
        match name:
            case "submit":
                newest = self._sq_slots[tail]
                arrows.append(Arrow("driver", "sq", f"{newest} in slot {tail}"))
                if system.host_sq.rung != system.host_sq.tail:
                    return f"writes {newest} to slot {tail}"
                arrows.append(Arrow("driver", "device", f"tail {system.host_sq.rung}"))
                return f"submits {newest}, rings tail {system.host_sq.rung}"
            case "ring":
                arrows.append(Arrow("driver", "device", f"tail {system.host_sq.rung}"))
                return f"rings tail {system.host_sq.rung}"
            case "reap":
                arrows.append(Arrow("cq", "driver", f"{letter}: SQHD {sqhd}, phase {phase}"))
                arrows.append(Arrow("driver", "device", f"head {system.host_cq.rung}"))
                return f"reaps {letter}, rings head {system.host_cq.rung}, believes SQHD {sqhd}"
            case "deliver":
                arrows.append(Arrow("interrupt", "driver", "handler"))
                return "delivers the interrupt: the handler begins"
            case "look":
                arrows.append(Arrow("cq", "driver", f"{letter}: SQHD {sqhd}, phase {phase}"))
                return f"takes {letter} from slot {cq_head}"
            case "release":
                arrows.append(Arrow("driver", "device", f"head {system.host_cq.rung}"))
                return f"rings head {system.host_cq.rung}"
            case "believe":
                return f"finishes its command, believes SQHD {system.host_sq.head}"
            case "wait":
                return "forgets what was raised meanwhile, and waits for an interrupt"
            case _:
                return "sees no further entry: the handler ends"

    def _device_text(
        self,
        label: Label,
        head: int,
        cq_tail: int,
        empty: bool,
        full: bool,
        arrows: list[Arrow],
        *,
        violation: bool,
    ) -> str:
        system = self.system
        said = []
        fetched = []
        while head != system.sq.head:
            fetched.append(self._sq_slots[head])
            head = (head + 1) % system.entries
        if fetched:
            arrows.append(Arrow("sq", "device", ", ".join(fetched)))
            said.append(f"fetches {', '.join(fetched)}")
        posted = []
        while cq_tail != system.cq.tail:
            letter, sqhd, phase = self._posted(cq_tail)
            arrows.append(Arrow("device", "cq", f"{letter}: SQHD {sqhd}, phase {phase}"))
            posted.append(f"{letter} (SQHD {sqhd}, phase {phase})")
            cq_tail = (cq_tail + 1) % system.entries
        if posted:
            said.append(f"posts {', '.join(posted)}")
        if label[0] == "interrupt" or (posted and self._raised):
            arrows.append(Arrow("device", "interrupt", "raise"))
            said.append("raises the interrupt")
        if label[0] == "execute":
            said.append("hands the oldest fetched command to the storage")
        if said:
            return "; ".join(said)
        if violation:
            return "posts" if label[0] == "post" else "takes its step"
        if label[0] == "post":
            return "looks at CQ 1: it is full" if full else "looks at CQ 1: nothing to post"
        return "looks at SQ 1: " + ("it is empty" if empty else "no request is free")

    @property
    def _raised(self) -> bool:
        return self.system.interrupt_raised

    def _posted(self, slot: int) -> tuple[str, int, int]:
        """Read the entry in this slot of the completion queue, and keep it."""
        entry = self.system.cq_ring[slot * CQE_SIZE : (slot + 1) * CQE_SIZE]
        sqhd = int.from_bytes(entry[8:10], "little")
        cid = int.from_bytes(entry[12:14], "little")
        self._cq_slots[slot] = (self._name(cid), sqhd, entry[14] & 1)
        return self._cq_slots[slot]

    def moment(
        self, number: int, label: Label, actor: Actor, text: str, arrows: list[Arrow]
    ) -> Moment:
        """The state as it is now."""
        system = self.system
        waiting = [token for token in system.in_flight() if isinstance(token, Request)]
        in_flight = [request.cid for request in (*system.sq.fetched, *waiting)]
        running = system.driver.save()[0] in ("running", "leaving")
        return Moment(
            number=number,
            label=label_text(label),
            actor=actor,
            text=text,
            arrows=arrows,
            sq=self._sq(),
            cq=self._cq(),
            pool=Pool(
                size=system.sq.limit,
                in_flight=[self._name(cid) for cid in in_flight],
                finished=[self._name(request.cid) for request in system.cq.finished],
            ),
            wakeups=self._wakeups(),
            interrupt="raised" if self._raised else "in service" if running else "none",
            outstanding=sorted(
                (self._name(cid) for cid in system.host_sq.outstanding),
                key=lambda name: (len(name), name),
            ),
        )

    def _wakeups(self) -> list[str]:
        system = self.system
        halves = system.controller.bottom_halves
        if halves:
            return [
                "fetch SQ 1" if isinstance(queue, SubmissionQueue) else "post CQ 1"
                for queue in halves.scheduled
            ]
        names = {"fetch": "fetch SQ 1", "post": "post CQ 1", "interrupt": "interrupt CQ 1"}
        return [names[name] for name, _number in system.enabled() if name in names]

    def _sq(self) -> Sq:
        system = self.system
        sq, host, size = system.sq, system.host_sq, system.entries
        slots = [SqSlot(command) for command in self._sq_slots]
        spans = (
            ("fetched", host.head, sq.head),
            ("rung", sq.head, host.rung),
            ("written", host.rung, host.tail),
        )
        for state, start, end in spans:
            for offset in range((end - start) % size):
                at = (start + offset) % size
                slots[at] = SqSlot(self._sq_slots[at], state)  # type: ignore[arg-type]
        return Sq(1, slots, host.tail % size, sq.tail % size, sq.head, host.head)

    def _cq(self) -> Cq:
        system = self.system
        cq, host, size = system.cq, system.host_cq, system.entries
        slots = [CqSlot(*slot) for slot in self._cq_slots]
        spans = (("reaped", cq.head, host.head), ("posted", host.head, cq.tail))
        for state, start, end in spans:
            for offset in range((end - start) % size):
                at = (start + offset) % size
                slots[at] = CqSlot(*self._cq_slots[at], state)  # type: ignore[arg-type]
        return Cq(1, slots, cq.tail, cq.phase, host.head, cq.head)
