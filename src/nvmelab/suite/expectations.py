"""Findings that somebody knows of a device, in a TOML file, so that only new ones fail a CI run.

[[known]]
check = "overcommit.silence"
device = "QEMU 5.2.*"
why = "QEMU issue 2388, fixed in 7.2.15, 8.2.8, 9.0.4, 9.1.2"
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Collection, Sequence

import msgspec

from nvmelab.suite.runner import Result


class ExpectationsError(Exception):
    """The file cannot be used. One line for the user."""


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One finding that is expected: of `check`, on devices whose name `device` matches."""

    check: str
    why: str
    device: str = "*"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    known: list[Known] = []


class Expectations:
    """The findings that are expected of the device called `device`."""

    def __init__(self, known: Sequence[Known], device: str) -> None:
        self._known = {
            entry.check: entry for entry in known if fnmatch.fnmatchcase(device, entry.device)
        }

    def apply(self, result: Result) -> Result:
        """The result, with the reason why it is expected if it is."""
        entry = self._known.get(result.id)
        if entry is None or result.result != "finding":
            return result
        return msgspec.structs.replace(result, known=entry.why)

    def unmet(self, results: Sequence[Result]) -> list[str]:
        """Checks that pass although the file says that they do not."""
        return [
            result.id for result in results if result.result == "pass" and result.id in self._known
        ]


def read_expectations(path: str, checks: Collection[str]) -> list[Known]:
    """The entries of an expectations file. Raises ExpectationsError."""
    try:
        with open(path, "rb") as file:
            found = msgspec.convert(tomllib.load(file), _File).known
    except OSError as error:
        raise ExpectationsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ExpectationsError(
            f"{path}: {error}; an entry is [[known]] with check, why and, if wanted, device"
        ) from None
    for entry in found:
        if entry.check not in checks:
            raise ExpectationsError(
                f"{path}: there is no check {entry.check!r}; nvmelab test --list has them"
            )
    return found
