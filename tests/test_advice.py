"""Commands that error messages suggest."""

from __future__ import annotations

import pytest

from nvmelab.advice import convert_line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("disk.qcow2", "qemu-img convert -O raw disk.qcow2 disk.raw"),
        ("disk.raw", "qemu-img convert -O raw disk.raw disk.raw.raw"),
        ("my disk", "qemu-img convert -O raw 'my disk' 'my disk.raw'"),
    ],
)
def test_image_is_converted_to_a_name_of_its_own(path: str, line: str) -> None:
    assert convert_line(path) == line


def test_name_with_a_newline_stays_on_one_line() -> None:
    assert "\n" not in convert_line("a\nb.qcow2")
