"""A test of your own, for any device: pytest --nvme-target qemu:/usr/bin/qemu-system-x86_64"""

import nvmelab


def test_wraps(nvme: nvmelab.Controller) -> None:
    q = nvme.create_qpair(entries=4, flow="sqhd")
    done = [q.read(nsid=1, slba=n * 8, nlb=8) for n in range(100)]
    assert all(c.wait().ok for c in done)
