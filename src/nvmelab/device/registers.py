"""The properties of BAR0 as bytes: reads of any width, writes of any width through write masks.

The host should use a register's own width or aligned 4-byte halves (NVMe over PCIe Transport,
3.1.2), but real drivers also read single bytes, so any width is served; a narrow write changes just
the bytes it names. Side effects are the controller's, called by register name.
"""

from __future__ import annotations

from nvmelab.spec.registers import OFFSET, PROPERTIES_SIZE, REGISTERS, Register


class RegisterFile:
    """The values of all properties."""

    def __init__(self) -> None:
        self._bytes = bytearray(PROPERTIES_SIZE)
        self._at: dict[int, Register] = {}
        for register in REGISTERS:
            for offset in range(register.offset, register.offset + register.size):
                assert offset not in self._at, f"{register.name} overlaps another register"
                self._at[offset] = register
        self._size = {register.name: register.size for register in REGISTERS}

    def __getitem__(self, name: str) -> int:
        """The value of the register of that name."""
        offset = OFFSET[name]
        return int.from_bytes(self._bytes[offset : offset + self._size[name]], "little")

    def __setitem__(self, name: str, value: int) -> None:
        """Set it as the controller does: write masks do not apply."""
        offset, size = OFFSET[name], self._size[name]
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")

    def read(self, offset: int, size: int) -> int:
        """`size` bytes at `offset`, which lie within the properties. Reserved ones are zero."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def touched(self, offset: int, size: int, value: int) -> list[tuple[Register, int, int]]:
        """The registers that a write of `size` bytes at `offset` reaches, each with the value it
        brings and the mask of the bits it names, both in the register's own bit positions."""
        found: list[tuple[Register, int, int]] = []
        for at in range(offset, offset + size):
            register = self._at.get(at)
            if register is None or (found and found[-1][0] is register):
                continue
            shift = 8 * (offset - register.offset)
            mask = ((1 << 8 * size) - 1) << shift if shift >= 0 else ((1 << 8 * size) - 1) >> -shift
            brought = value << shift if shift >= 0 else value >> -shift
            mask &= (1 << 8 * register.size) - 1
            found.append((register, brought & mask, mask))
        return found

    def merged(self, register: Register, value: int, mask: int) -> int:
        """The register's value if the bits of `mask` that are writable become those of `value`."""
        mask &= register.writable
        return self[register.name] & ~mask | value & mask
