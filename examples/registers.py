"""Registers, by name and by offset; no driver between you and the device.

python examples/registers.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    print(f"CAP  {nvme['cap']:#018x}   {nvme.cap}")
    print(f"VS   {nvme['vs']:#010x}")
    print(f"CSTS {nvme[0x1C]:#010x}           {nvme.csts}")
    nvme["cc"] &= ~1  # CC.EN = 0: a Controller Reset
    nvme.wait_csts("CSTS.RDY 0", rdy=0)
    print(f"CSTS {nvme['csts']:#010x} after CC.EN = 0")
