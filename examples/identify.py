"""Who is there: the controller and its namespaces.

python examples/identify.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    controller = nvme.identify()
    print(f"{controller.mn}, serial {controller.sn}, firmware {controller.fr}")
    print(f"{nvme.io_queues} I/O queue pairs, of at most {nvme.cap.mqes} entries each")
    for nsid in nvme.active_namespaces():
        namespace = nvme.namespace(nsid)
        print(f"namespace {nsid}: {namespace.blocks} blocks of {namespace.block} bytes")
