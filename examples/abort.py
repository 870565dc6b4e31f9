"""Abort a command while its data is held back.

python examples/abort.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=4)
    if nvme.link.storage:
        nvme.link.storage.hold = True
    victim = qpair.read(slba=0)
    answer = nvme.abort(victim).check()
    print("aborted" if answer.dw0 & 1 == 0 else "the device does not say that it was aborted")
    if nvme.link.storage:
        nvme.link.storage.let_go()
    print(f"the command itself: {victim.wait().status.label}")
