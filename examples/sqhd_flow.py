"""More commands outstanding than the queue has entries: a driver that believes SQHD, as OSv's does.

python examples/sqhd_flow.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=4, cq_entries=16, flow="sqhd", release="entry")
    storage = nvme.link.storage
    if storage is None:
        sys.exit("this target's storage cannot be held back")
    storage.hold = True
    commands = [qpair.read(slba=n) for n in range(3)]  # the ring of 4 entries is full
    nvme.link.settle()
    storage.release(2)  # the newest: its completion's SQHD says that all three were fetched
    commands += [qpair.read(slba=n) for n in range(3, 6)]
    print(f"{qpair.outstanding} commands outstanding on a queue of {qpair.sq.entries} entries")
    storage.let_go()
    qpair.wait_all()
    assert all(command.ok for command in commands)
    print("all done")
