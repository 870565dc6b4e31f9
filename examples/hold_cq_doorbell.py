"""Hold the completion queue's head doorbell back until the queue is full, then release it.

python examples/hold_cq_doorbell.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=8, cq_entries=4, release="held")
    commands = [qpair.read(slba=n) for n in range(6)]
    nvme.link.settle()
    qpair.cq.reap()
    print(f"{sum(c.done for c in commands)} of 6 done: a CQ of 4 entries holds 3")
    while not all(command.done for command in commands):
        qpair.cq.ring()
        qpair.cq.wait(lambda: qpair.cq.peek() is not None, "a completion", serve=False)
        qpair.cq.reap()
    print("6 of 6 done after the head doorbell")
