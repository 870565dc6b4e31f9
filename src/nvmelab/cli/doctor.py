"""`nvmelab doctor`: what this machine has for running guests, what is missing, how to get it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import click
import msgspec

from nvmelab.qemu.binary import QEMU_MIN, QemuError, kvm_works, probe

_HOW_TO_GET_QEMU = (
    "install QEMU 10.1 or later: Debian trixie-backports and forky have it; "
    "in a checkout of nvmelab, `make lab` puts one under .lab/ without installing it"
)


class Check(msgspec.Struct):
    """One line of the report."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def _folders() -> list[str]:
    """Those of the PATH, and that of `make lab` below this folder."""
    return [*os.get_exec_path(), ".lab/bin"]


def _qemu_binaries() -> list[str]:
    """Every qemu-system-* that is here."""
    found: dict[str, str] = {}
    for folder in _folders():
        for path in sorted(Path(folder).glob("qemu-system-*")):
            if os.access(path, os.X_OK) and path.is_file():
                found.setdefault(os.path.realpath(path), str(path))
    return list(found.values())


def _check_python() -> Check:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Check("Python", ok, version, "" if ok else "3.11 or later is needed")


def _check_qemu(binary: str) -> Check:
    try:
        info = probe(binary)
    except QemuError as error:
        return Check("QEMU", False, str(error))
    version = ".".join(map(str, info.version))
    if info.has_vfio_user_pci:
        return Check("QEMU", True, f"{binary}: {version}, has vfio-user-pci")
    old = info.version[:2] < QEMU_MIN
    why = "too old for vfio-user-pci" if old else "built without vfio-user-pci"
    return Check("QEMU", False, f"{binary}: {version}, {why}")


def _check_kvm(binary: str | None) -> Check:
    device = "/dev/kvm"
    if not os.path.exists(device):
        return Check("KVM", False, f"no {device}", "guests run under -accel tcg, which is slower")
    if not os.access(device, os.R_OK | os.W_OK):
        advice = "add yourself to the group that owns it, usually: sudo usermod -aG kvm $USER"
        return Check("KVM", False, f"{device} may not be opened", advice)
    if binary is None:
        return Check("KVM", False, f"{device} is there; not tried without a QEMU")
    if kvm_works(binary):
        return Check("KVM", True, "a probe guest ran")
    advice = "use -accel tcg; this machine is probably a guest itself, without nested KVM"
    return Check("KVM", False, f"{device} is there, but a probe guest did not run", advice)


def _check_tool(name: str, why: str) -> Check:
    path = shutil.which(name, path=os.pathsep.join(_folders()))
    return Check(name, bool(path), path or "not found", "" if path else why)


def examine() -> list[Check]:
    """All checks, in the order of the report. Takes some seconds: it starts QEMU and a guest."""
    binaries = _qemu_binaries()
    qemus = [_check_qemu(binary) for binary in binaries]
    if not any(check.ok for check in qemus):
        found = "none of these can be used" if qemus else "no qemu-system-* on the PATH"
        qemus.append(Check("QEMU", False, found, _HOW_TO_GET_QEMU))
    checks = [_check_python(), *sorted(qemus, key=lambda check: not check.ok)]
    x86 = [binary for binary in binaries if "x86_64" in os.path.basename(binary)]
    checks.append(_check_kvm(x86[0] if x86 else None))
    checks.append(_check_tool("qemu-img", "needed only to convert images: apt install qemu-utils"))
    return checks


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(as_json: bool) -> None:
    """Look for what `nvmelab run` needs on this machine.

    Exit status 0 if some QEMU here can use our controller, otherwise 1. `nvmelab demo` needs
    nothing of this.

    \b
    nvmelab doctor
    nvmelab doctor --json
    """
    checks = examine()
    usable = any(check.what == "QEMU" and check.ok for check in checks)
    if as_json:
        click.echo(json.dumps({"can_run_guests": usable, "checks": msgspec.to_builtins(checks)}))
    else:
        for check in checks:
            click.echo(f"{'ok' if check.ok else 'no':<4}{check.what:<10}{check.found}")
            if not check.ok and check.advice:
                click.echo(f"{'':<14}{check.advice}")
        verdict = "yes" if usable else "no: see QEMU above"
        click.echo(f"\nnvmelab run, serve with a guest: {verdict}\nnvmelab demo: yes")
    sys.exit(0 if usable else 1)
