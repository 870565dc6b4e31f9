"""Write some blocks, read them back. Commands are waited for when you say so.

python examples/read_write.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=16)
    writes = [qpair.write(slba=8 * n, data=bytes([n]) * 4096) for n in range(40)]
    for command in writes:
        command.check()  # raises CommandFailed, or Stuck with the state of the rings
    reads = [qpair.read(slba=8 * n, nlb=8) for n in range(40)]
    assert all(command.data() == bytes([n]) * 4096 for n, command in enumerate(reads))
    print(f"{len(reads)} writes of 4 KiB read back")
