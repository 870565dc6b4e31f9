"""Two submission queues of different sizes on one completion queue.

python examples/shared_cq.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    cq = nvme.create_cq(entries=3)
    small, large = nvme.create_sq(entries=2, cq=cq), nvme.create_sq(entries=8, cq=cq)
    commands = [q.read(slba=n) for n in range(20) for q in (small, large)]
    assert all(command.wait().ok for command in commands)
    print(f"{len(commands)} commands, {cq.reaped} completions in a ring of {cq.entries} entries")
