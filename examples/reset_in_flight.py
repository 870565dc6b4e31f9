"""Reset the controller with commands in flight, and start it again.

python examples/reset_in_flight.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=16)
    commands = [qpair.read(slba=n) for n in range(10)]
    nvme.start()  # CC.EN = 0, CSTS.RDY = 0, new queues, CC.EN = 1
    print(f"{sum(command.done for command in commands)} of 10 were complete before the reset")
    again = nvme.create_qpair(entries=4)
    assert again.read(slba=0).wait().ok
    print("and the controller works again")
