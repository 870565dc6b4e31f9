"""What the exploration of small queues must count: states, transitions, hangs, shortest hang.

Other engines than the oracle have counted most of these too: Spin (tests/guest/test_spin.py
repeats some of it), TLC and Stateright. Models and variants are those of the oracle.
"""

from __future__ import annotations

from tests.explore.oracle import Counts, Grain, Model, Order

BOUNDED: dict[Model, Counts] = {
    Model(2, 2, 12, 0): Counts(119, 185, 0, None),
    Model(2, 2, 12, 1): Counts(61, 60, 0, None),
    Model(2, 2, 12, 2): Counts(95, 127, 0, None),
    Model(3, 3, 4, 1): Counts(146, 257, 2, 15),
    Model(3, 3, 6, 0): Counts(670, 1_633, 1, 24),
    Model(3, 3, 6, 1): Counts(467, 932, 5, 22),
    Model(3, 3, 6, 2): Counts(499, 1_122, 0, None),
    Model(3, 3, 6, 3): Counts(519, 1_154, 1, 23),
    Model(3, 3, 12, 0): Counts(2_479, 6_567, 1, 48),
    Model(3, 3, 12, 1): Counts(1_769, 3_763, 11, 23),
    Model(3, 3, 12, 2): Counts(1_738, 4_214, 0, None),
    Model(4, 4, 6, 0): Counts(1_883, 4_953, 1, 21),
    Model(4, 4, 6, 1): Counts(1_391, 3_194, 5, 20),
    Model(4, 4, 6, 2): Counts(1_461, 3_628, 0, None),
    Model(4, 4, 6, 3): Counts(1_497, 3_693, 1, 21),
    Model(4, 4, 12, 0): Counts(12_011, 35_771, 2, 41),
    Model(4, 4, 12, 1): Counts(9_200, 23_238, 13, 28),
    Model(4, 4, 12, 2): Counts(8_482, 23_588, 0, None),
    Model(6, 6, 12, 0): Counts(174_839, 557_064, 4, 35),
    Model(6, 6, 12, 1): Counts(142_487, 402_154, 20, 37),
    Model(6, 6, 12, 2): Counts(128_549, 387_732, 0, None),
}
"""M1 with a number of commands. With more commands than a hang needs, an idle hang is further away:
the driver could still submit, so all of them must be submitted first."""

UNBOUNDED: dict[Model, Counts] = {
    Model(2, 2, None, 0): Counts(10, 16, 0, None),
    Model(2, 2, None, 1): Counts(5, 5, 0, None),
    Model(2, 2, None, 2): Counts(8, 11, 0, None),
    Model(2, 2, None, 3): Counts(8, 11, 0, None),
    Model(3, 3, None, 0): Counts(302, 824, 1, 24),
    Model(3, 3, None, 1): Counts(218, 474, 5, 15),
    Model(3, 3, None, 2): Counts(207, 517, 0, None),
    Model(3, 3, None, 3): Counts(227, 563, 1, 23),
    Model(4, 4, None, 0): Counts(1_790, 5_502, 2, 21),
    Model(4, 4, None, 1): Counts(1_399, 3_610, 9, 18),
    Model(4, 4, None, 2): Counts(1_230, 3_526, 0, None),
    Model(4, 4, None, 3): Counts(1_334, 3_794, 2, 21),
    Model(4, 6, None, 0): Counts(4_317, 13_938, 2, 33),
    Model(4, 6, None, 1): Counts(3_555, 9_867, 17, 18),
    Model(4, 6, None, 2): Counts(2_933, 8_833, 0, None),
    Model(4, 6, None, 3): Counts(3_155, 9_467, 2, 33),
    Model(6, 6, None, 0): Counts(47_983, 160_667, 4, 27),
    Model(6, 6, None, 1): Counts(40_850, 119_307, 20, 24),
    Model(6, 6, None, 2): Counts(33_532, 105_631, 0, None),
    Model(6, 6, None, 3): Counts(34_955, 109_673, 4, 27),
}
"""M1 for every number of commands at once."""

FINER: dict[Model, Counts] = {
    Model(3, 3, 6, 0, Grain.M2): Counts(4_952, 13_960, 1, 44),
    Model(3, 3, 4, 1, Grain.M2): Counts(862, 1_748, 2, 29),
    Model(3, 3, 6, 1, Grain.M2): Counts(3_323, 7_635, 5, 40),
    Model(3, 3, 6, 2, Grain.M2): Counts(3_592, 9_343, 0, None),
    Model(4, 4, 6, 0, Grain.M2): Counts(14_574, 41_886, 1, 41),
}

ORDERED: dict[Model, Counts] = {
    Model(3, 3, 6, 0, order=Order.PASS): Counts(616, 1_259, 1, 22),
    Model(4, 4, 6, 0, order=Order.PASS): Counts(1_836, 4_191, 1, 20),
    Model(3, 3, 6, 0, order=Order.TIMERS): Counts(639, 1_339, 1, 24),
    Model(4, 4, 6, 0, order=Order.TIMERS): Counts(1_876, 4_353, 1, 21),
}
"""M1 in the order in which a QEMU runs its bottom halves: 7.2 and later last in, first out, within
a pass; 5.2 and 6.2 as timers. A free order reaches more."""

LARGE: dict[Model, Counts] = {
    Model(8, 8, 12, 0): Counts(1_228_085, 3_815_251, 3, 35),
    Model(8, 8, 12, 2): Counts(975_118, 2_907_617, 0, None),
    Model(8, 8, None, 0): Counts(1_144_000, 3_947_266, 6, 33),
    Model(8, 8, None, 2): Counts(808_562, 2_632_148, 0, None),
}
"""Too large for a test in Python; Spin counts the first two."""

FEWEST: dict[tuple[int, int], tuple[int, int] | None] = {
    **{(2, slots): None for slots in (1, 2, 3, 4, 6)},
    (3, 2): (4, 15),
    (3, 3): (6, 24),
    (3, 4): (8, 33),
    (3, 5): (10, 42),
    (3, 7): (14, 60),
    (4, 3): (5, 18),
    (4, 4): (6, 21),
    (4, 5): (8, 30),
    (4, 6): (9, 33),
    (4, 8): (12, 45),
    (5, 4): (6, 21),
    (5, 5): (7, 24),
    (5, 6): (8, 27),
    (5, 7): (10, 36),
    (5, 9): (12, 42),
    (6, 5): (7, 24),
    (6, 6): (8, 27),
    (6, 7): (9, 30),
    (6, 8): (10, 33),
    (6, 10): (13, 45),
    (8, 7): (9, 30),
    (8, 8): (10, 33),
    (8, 9): (11, 36),
    (8, 10): (12, 39),
}
"""Before the fix: the fewest commands that can hang and the steps to the nearest hang of so many,
by entries and slots. Two entries never hang."""


def law(entries: int, slots: int) -> tuple[int, int]:
    """The same, by the law that the table follows for three and more entries. It was found by
    search: there is no proof for every number of slots."""
    rounds = max(0, -((entries - 2 - slots) // (entries - 2)))
    commands = slots + 1 + rounds
    return commands, 3 * (commands + rounds)


def law_of_first_patch(entries: int) -> tuple[int, int]:
    """The same for the first patch, with at least entries - 1 slots."""
    return entries + 1, 3 * (entries + 2)
