"""PRP lists of any shape: scattered pages, an offset, a list that begins near the end of a page.

python examples/prp_shapes.py [TARGET]
"""

import sys

import nvmelab

with nvmelab.connect(*sys.argv[1:]) as nvme:
    qpair = nvme.create_qpair(entries=4)
    data = bytes(range(256)) * 256  # 64 KiB
    odd = nvme.buffer(len(data), offset=2052, scattered=True, list_offset=4096 - 3 * 8)
    odd.write(data)
    prp1, prp2 = odd.prps()
    print(f"PRP1 {prp1:#x}, PRP2 {prp2:#x}: a list of 3 entries, the last of them a chain")
    qpair.write(slba=0, buffer=odd).check()
    assert qpair.read(slba=0, nlb=128).data() == data
    print("64 KiB written through it are read back")
