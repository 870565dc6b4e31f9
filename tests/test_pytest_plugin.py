"""The pytest plugin, as its users meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parents[1] / "examples/test_wraps.py"


def test_the_example_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(EXAMPLE.read_text())
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_each_test_gets_a_controller_that_was_just_started(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_fresh(nvme, number):
            assert nvme.create_qpair(entries=4).qid == 1
            nvme.link.storage.hold = True
            nvme.sqs[1].submit(__import__("nvmelab").spec.nvm.Flush(nsid=1))
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_stuck_command_is_a_failure_with_the_rings_and_the_next_test_goes_on(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        def test_hangs(nvme):
            nvme.link.storage.hold = True
            nvme.create_qpair(entries=4).flush().wait()

        def test_goes_on(nvme):
            nvme.create_qpair(entries=4).flush().check()
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Stuck: Flush CID 0x0 never came:*1 outstanding*"])


def test_target_that_is_none_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--nvme-target", "disk")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nvme-target: 'disk' is no target; give inproc, *"])


def test_target_that_is_not_there_is_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(nvme): ...")
    result = pytester.runpytest_subprocess("--nvme-target", "vfio-user:nowhere.sock")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["nowhere.sock does not exist; start a server, *"])
    result.stdout.no_fnmatch_line("*Traceback*")
