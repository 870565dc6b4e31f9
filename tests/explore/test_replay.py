"""A run that was found shrinks, is recorded and fails again; damaged files are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.narrate import letters, tell
from nvmelab.explore.program import program
from nvmelab.explore.replay import Replay, ReplayError, decode, encode, follow
from nvmelab.explore.sample import default_burst, sample
from nvmelab.explore.setting import Setting, label_text, parse_label
from nvmelab.explore.shrink import shrink
from tests.explore.constants import law

HANG = Setting(entries=3, device="qemu-9.0")


@pytest.fixture(scope="module")
def replay() -> Replay:
    found = explore(HANG, Plan()).replay
    assert found
    return found


def test_a_replay_survives_its_file_and_fails_again(replay: Replay) -> None:
    again = decode(encode(replay))
    assert again == replay and again.shortest and len(again.labels) == 24
    played = follow(again.setting.system(), again.steps(), again.digests)
    assert played.ball and played.ball.party == "device"
    assert (played.skipped, played.differs) == (0, None)


@pytest.mark.parametrize("device", ["nvmelab", "qemu-9.1.2"])
def test_the_same_steps_do_not_hang_a_sound_device(replay: Replay, device: str) -> None:
    setting = msgspec.structs.replace(replay.setting, device=device)
    played = follow(setting.system(), replay.steps())
    assert not played.failed
    assert tell(setting, played.labels).title.startswith("No hang")


def test_a_replay_says_where_it_begins_to_differ(replay: Replay) -> None:
    digests = [*replay.digests]
    digests[6] = "0" * 12
    played = follow(HANG.system(), replay.steps(), digests)
    assert played.differs == 7 and played.failed


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        loaded = json.loads(data)
        change(loaded)
        return json.dumps(loaded).encode()

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "no JSON"),
        (lambda data: data[:100], "no JSON"),
        (lambda data: b"\xff\xfe" + data, "no JSON"),
        (lambda data: b"[" * 100_000, "no JSON"),
        (lambda data: b"[1]", "no replay file"),
        (lambda data: b" " * (17 << 20), "more than 16 MiB"),
        (edit(lambda all: all.update(format="other")), "no replay file"),
        (edit(lambda all: all.update(version=2)), "version 2"),
        (edit(lambda all: all.update(labels=7)), "damaged"),
        (edit(lambda all: all.update(more=7)), "damaged"),
        (edit(lambda all: all.update(rule="none")), "no such rule"),
        (edit(lambda all: all.update(labels=[], digests=[])), "damaged"),
        (edit(lambda all: all["labels"].pop()), "a digest for each"),  # type: ignore[attr-defined]
        (edit(lambda all: all.update(result="violation")), "damaged"),
        (edit(lambda all: all.update(ball="nobody")), "no such rule"),
        (
            edit(lambda all: all.update(labels=["submit"] * 100_001, digests=[""] * 100_001)),
            "steps",
        ),
    ],
)
def test_a_damaged_file_is_refused(
    replay: Replay, damage: Callable[[bytes], bytes], said: str
) -> None:
    with pytest.raises(ReplayError) as caught:
        decode(damage(encode(replay)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["submit", "fetch 1", "complete 0", "complete 12", "pass"])
def test_labels_are_read_as_they_are_written(text: str) -> None:
    assert label_text(parse_label(text)) == text


@pytest.mark.parametrize(
    "text", ["", "2", "fetch x", "a b c", "fetch -1", "fetsch 1", "complete", "fetch 01"]
)
def test_words_that_are_no_label(text: str) -> None:
    with pytest.raises(ValueError, match="no step"):
        parse_label(text)


def test_the_program_of_a_run_fails_until_the_device_is_repaired(
    replay: Replay, tmp_path: Path
) -> None:
    story = tell(replay.setting, replay.steps())
    path = tmp_path / "hang.py"
    path.write_text(program(replay, story))
    ended = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "hang: the device has the ball" in ended.stderr
    path.write_text(path.read_text().replace("device='qemu-9.0'", "device='qemu-9.1.2'"))
    assert subprocess.run([sys.executable, path], capture_output=True).returncode == 0


@pytest.mark.parametrize(("number", "name"), [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ")])
def test_commands_have_letters(number: int, name: str) -> None:
    assert letters(number) == name


@pytest.mark.parametrize(("entries", "longest"), [(3, 24), (4, 22), (8, 33), (16, 60)])
def test_a_sampled_run_shrinks_to_about_the_shortest(entries: int, longest: int) -> None:
    setting = Setting(entries=entries, device="qemu-9.0")
    system = setting.system()
    start = system.save()
    found = sample(system, strategy="pct", seed=7, runs=100, burst=default_burst(entries))
    assert found.labels and system.save() == start
    shrunk = shrink(system, found.labels).played
    assert law(entries, entries)[1] <= len(shrunk.labels) <= longest
    again = follow(setting.system(), shrunk.labels)
    assert again.labels == shrunk.labels and again.ball == shrunk.ball


def test_no_step_of_a_shrunk_run_can_be_left_out() -> None:
    setting = Setting(entries=4, device="qemu-9.0")
    found = sample(setting.system(), strategy="pct", seed=7, runs=100, burst=16)
    assert found.labels
    labels = shrink(setting.system(), found.labels).played.labels
    for number in range(len(labels)):
        fewer = labels[:number] + labels[number + 1 :]
        played = follow(setting.system(), fewer)
        assert not played.failed or len(played.labels) >= len(labels)


def test_a_large_queue_is_found_and_shrunk() -> None:
    result = explore(Setting(entries=64, device="qemu-9.0", rules=False), Plan("pct", 7))
    assert result.result == "hang" and result.replay
    assert len(result.replay.labels) == law(64, 64)[1] == 201
    assert not result.replay.shortest


def test_a_small_queue_is_certified() -> None:
    result = explore(Setting(entries=4, device="qemu-9.0"), Plan("pct", 7))
    assert result.replay and result.replay.shortest and len(result.replay.labels) == 21
    assert result.replay.strategy == "pct"


@pytest.mark.parametrize("strategy", ["pct", "walk"])
@pytest.mark.parametrize("device", ["nvmelab", "qemu-9.1.2"])
def test_sampling_finds_nothing_on_a_sound_device(device: str, strategy: str) -> None:
    plan = msgspec.convert({"strategy": strategy, "runs": 50, "depth": 3}, Plan)
    assert explore(Setting(entries=8, device=device), plan).result == "budget"


@pytest.mark.parametrize(
    ("entries", "strategy", "low", "high"),
    [
        (3, "pct", 0.38, 0.46),
        (4, "pct", 0.30, 0.37),
        (3, "walk", 0.02, 0.06),
        (4, "walk", 0.03, 0.12),
    ],
)
def test_a_run_hits_as_often_as_it_should(
    entries: int, strategy: str, low: float, high: float
) -> None:
    system = Setting(entries=entries, device="qemu-9.0", rules=False).system()
    found = sample(
        system,
        strategy="pct" if strategy == "pct" else "walk",
        seed=1,
        runs=1000,
        burst=12,
        all_runs=True,
    )
    assert low <= found.hits / found.runs <= high


def test_one_seed_gives_one_run_in_every_process() -> None:
    script = (
        "import sys;from nvmelab.explore.explore import *;from nvmelab.explore.setting import *;"
        "from nvmelab.explore.replay import encode;"
        "r=explore(Setting(16,'qemu-9.0'),Plan('pct',3,depth=2));"
        "s=explore(Setting(3,'qemu-9.0'),Plan());t=explore(Setting(8,'qemu-9.0'),Plan('walk',5));"
        "print(encode(r.replay),encode(s.replay),encode(t.replay),r.transitions,s.transitions)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(said) == 1 and "hang" in said.pop()
