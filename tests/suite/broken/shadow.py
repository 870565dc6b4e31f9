"""Faults of shadow doorbells; each is the model of one that was found in an emulator."""

from __future__ import annotations

from typing import Any, ClassVar

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue
from nvmelab.device.shadow import Shadow, ShadowDoorbells, Watch


class WithShadows(Controller):
    """A controller whose shadow doorbells are of the class `shadow_doorbells`."""

    shadow_doorbells: ClassVar[type[ShadowDoorbells]]

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.shadows = self.shadow_doorbells(self)


class AcceptsAnyAddress(WithShadows):
    """The offset bits of the two addresses are dropped without a word."""

    class shadow_doorbells(ShadowDoorbells):
        def configure(self, shadow: int, event_index: int) -> None:
            super().configure(shadow & ~0xFFF, event_index & ~0xFFF)


class NeverPublishes(WithShadows):
    """EventIdx is never written (QEMU on riscv64, completion queues)."""

    class shadow_doorbells(ShadowDoorbells):
        def _arm(self, shadow: Shadow, *rest: Any) -> None:
            shadow.watch = Watch.LOOK_AGAIN


class PublishesTooFar(WithShadows):
    """EventIdx is one ahead of what was seen."""

    class shadow_doorbells(ShadowDoorbells):
        def _arm(self, shadow: Shadow, value: int, *rest: Any) -> None:
            super()._arm(shadow, value + 1, *rest)


class SleepsWithoutASecondLook(WithShadows):
    """After EventIdx is published, the shadow is not looked at again: a lost wake-up."""

    class shadow_doorbells(ShadowDoorbells):
        def _arm(self, shadow: Shadow, *rest: Any) -> None:
            super()._arm(shadow, *rest)
            shadow.watch = Watch.REST


class FullQueueIsNotArmed(WithShadows):
    """EventIdx of a full completion queue is not published: the host drains it in silence.

    Propolis, issue 1008.
    """

    class shadow_doorbells(ShadowDoorbells):
        def step_cq(self, cq: CompletionQueue) -> str:
            step = super().step_cq(cq)
            return "" if step == "arm" or (cq.full and step) else step


class RemembersOldQueues(WithShadows):
    """A new queue begins with the EventIdx of the old one of that number."""

    class shadow_doorbells(ShadowDoorbells):
        def _begin(self, index: int, value: int) -> Shadow | None:
            made = super()._begin(index, value)
            if made and index > 1:
                self._store(made.event_at, 2)
                made.watch = Watch.REST
            return made


class SurvivesReset(WithShadows):
    """The two pages are kept over a Controller Reset, and zeroed for the new queues (OpenVMM, PR
    4011)."""

    class shadow_doorbells(ShadowDoorbells):
        def end(self) -> None: ...


BROKEN: dict[str, list[type[Controller]]] = {
    "shadow.bad-pages": [AcceptsAnyAddress],
    "shadow.load": [NeverPublishes, PublishesTooFar],
    "shadow.one-by-one": [NeverPublishes, PublishesTooFar],
    "shadow.race": [SleepsWithoutASecondLook],
    "shadow.full-cq": [FullQueueIsNotArmed],
    "shadow.queues-again": [RemembersOldQueues],
    "shadow.reset": [SurvivesReset],
}
