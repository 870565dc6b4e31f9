"""A namespace as its driver sees it."""

from __future__ import annotations

from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Pending
from nvmelab.spec.identify import IdentifyNamespace


class Namespace:
    """One namespace: `block` bytes in a logical block, `blocks` of them."""

    def __init__(self, nsid: int, data: bytes) -> None:
        """`data` is its Identify Namespace data structure."""
        self.nsid = nsid
        self.identity = identity = IdentifyNamespace.decode(data)
        # LBADS of the format in use: bits 23:16 of its 4 bytes (NVM Command Set 1.2, 4.1.5.1).
        self.block = 1 << data[128 + 4 * (identity.flbas & 0xF) + 2]
        self.blocks = identity.nsze

    def read(self, qpair: Qpair, slba: int, nlb: int = 1) -> Pending:
        """Read blocks through `qpair`."""
        return qpair.read(self.nsid, slba=slba, nlb=nlb, block=self.block)

    def write(self, qpair: Qpair, slba: int, data: bytes) -> Pending:
        """Write `data`, a multiple of the block size."""
        return qpair.write(self.nsid, slba=slba, data=data, block=self.block)
