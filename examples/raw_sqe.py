"""A submission queue entry of any bits: 64 bytes, of which only the CID is put in for you.

python examples/raw_sqe.py [TARGET]
"""

import struct
import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=4)
    # Opcode 7Fh is of no command set; NSID 1; everything else zero.
    entry = struct.pack("<II", 0x7F, 1).ljust(64, b"\0")
    done = qpair.submit(entry, cid=0xBEEF).wait()
    print(f"CID {done.cid:#x}: {done.status.label}")
    assert not done.ok
