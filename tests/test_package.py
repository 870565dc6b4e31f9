"""The names of the library."""

from __future__ import annotations

import pytest

import nvmelab


@pytest.mark.parametrize("name", nvmelab.__all__)
def test_name_is_there(name: str) -> None:
    assert getattr(nvmelab, name).__name__ == name


def test_no_other_name_is_there() -> None:
    assert set(nvmelab.__all__) == set(nvmelab._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nvmelab.nothing  # type: ignore[attr-defined]  # noqa: B018
