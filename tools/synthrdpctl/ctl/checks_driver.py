# SPDX-License-Identifier: GPL-2.0-only
"""Checks from the host to the driver: what keeps the guest from being ready."""

from __future__ import annotations

import re

from .doctor import MOOT, WARNING, Found, Outcome, Scene, Table, Unknown
from .facts import CONTROL, DEVICES, DISABLED, DRIVER
from .system import JOURNAL, KERNEL_LOG

FIRST_BUILD = 9600              # Windows Server 2012 R2 brought Enhanced Session
OLDEST_KERNEL = 6, 1
ISOLATION = r"Isolation Config: .*Group B 0x([0-9a-fA-F]+)"
ISOLATIONS = {1: "VBS", 2: "AMD SEV-SNP", 3: "Intel TDX"}
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
REJECTED = (r"Key was rejected by service|Loading of .* is rejected"
            r"|unsigned module loading is restricted")
READY = "synthrdp-ready.service"
XRDP = "synthrdp-xrdp.service"         # the server that comes with the relay

check = Table()


@check("not-hyperv", "this is a Hyper-V guest", gate=True)
def not_hyperv(scene: Scene) -> Outcome:
    """Somewhere else there is nothing to have."""
    if scene.status.host.hyperv:
        return None
    return Found("This is not a Hyper-V guest.",
                 "Nothing: Enhanced Session is Hyper-V's. On other hosts use RDP over the network.")


@check("no-vmbus", "the kernel has a connection to the host")
def no_vmbus(scene: Scene) -> Outcome:
    """The bus is a module of the kernel's own."""
    if not scene.status.host.hyperv:
        return MOOT
    if scene.system.exists(DEVICES):
        return None
    return Found("The kernel has no VMBus, on which the host offers its devices.",
                 "modprobe hv_vmbus; if there is no such module, boot a kernel with CONFIG_HYPERV.")


def _lacks_offer(scene: Scene) -> bool:
    return scene.system.exists(DEVICES) and not scene.status.control.offered


@check("confidential", "this is no confidential VM", reads=(KERNEL_LOG,))
def confidential(scene: Scene) -> Outcome:
    """Linux takes few devices from a host that it does not trust."""
    if not scene.status.host.hyperv or scene.status.control.offered:
        return MOOT
    said = scene.system.kernel_said(ISOLATION)
    kind = ISOLATIONS.get(int(said[1], 16) & 15) if said else None
    for node, name in (("/dev/sev-guest", ISOLATIONS[2]), ("/dev/tdx_guest", ISOLATIONS[3])):
        if scene.system.exists(node):
            kind = name
    if kind is None:
        return None
    return Found(f"This is a confidential VM ({kind}): Linux refuses the host's Enhanced Session"
                 " there.",
                 "Use RDP over the network, or make the VM an ordinary one if it need not be"
                 " confidential.")


@check("old-host", "the host is new enough")
def old_host(scene: Scene) -> Outcome:
    """By its build."""
    if not _lacks_offer(scene):
        return MOOT
    build = scene.status.host.build
    if build is None:
        return Unknown("the host's build is not in the kernel's log")
    if int(build.split(".")[2]) >= FIRST_BUILD:
        return None
    return Found(f"The host (build {build}) is older than Enhanced Session.",
                 "Move the VM to Windows Server 2012 R2 or later; better, to one that is still"
                 " maintained.")


@check("hvsocket", "the VM is not set for Hyper-V sockets")
def hvsocket(scene: Scene) -> Outcome:
    """The older recipe for Linux guests set another transport on the host."""
    if not _lacks_offer(scene):
        return MOOT
    ports = [line for _, line in scene.system.config("/etc/xrdp/xrdp.ini")
             if re.match(r"port\s*=.*vsock:|use_vsock\s*=\s*(true|yes|1)$", line)]
    if not ports:
        return None
    return Found("The host does not offer Enhanced Session over VMBus, and xrdp is set up for"
                 " Hyper-V sockets: so the VM may be, too.",
                 "On the host, as administrator: Set-VM -VMName NAME"
                 " -EnhancedSessionTransportType VMBus; then stop and start the VM.",
                 tuple(ports))


@check("not-offered", "the host offers Enhanced Session")
def not_offered(scene: Scene) -> Outcome:
    """Why it does not, only the host knows."""
    if not scene.system.exists(DEVICES):
        return MOOT
    if scene.status.control.offered:
        return None
    if any(isinstance(other(scene), Found) for other in (confidential, old_host, hvsocket)):
        return MOOT
    return Found("The host does not offer Enhanced Session to this guest.",
                 "On the host, as administrator: Set-VMHost -EnableEnhancedSessionMode $true, and"
                 " Set-VM -VMName NAME -EnhancedSessionTransportType VMBus; then stop and start"
                 " the VM.")


# The module

@check("module-missing", "the module is installed")
def module_missing(scene: Scene) -> Outcome:
    """Neither for a kernel nor as a source to build."""
    if scene.has_module or scene.modules or _source(scene):
        return None
    return Found(f"The module {DRIVER} is not installed.",
                 "Install the package hv-synthrdp-dkms; or, in the source: make && make install.")


def _source(scene: Scene) -> bool:
    """Whether DKMS has something to build."""
    return bool(scene.system.glob("/usr/src/hv-synthrdp-*/dkms.conf"))


@check("module-kernel", "it is built for the running kernel")
def module_kernel(scene: Scene) -> Outcome:
    """Only for others, or for none: then the kernel's headers are missing, mostly."""
    if scene.has_module:
        return None
    if not scene.modules and not _source(scene):
        return MOOT
    numbers = re.match(r"(\d+)\.(\d+)", scene.release)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        return Found(f"The running kernel {scene.release} is too old for the module, which is not"
                     " built for it.", "Boot a kernel from 6.1 on.")
    logs = scene.system.glob("/var/lib/dkms/hv*synthrdp/*/build/make.log")
    errors = [line for name in logs for line in scene.system.tail(name) if "rror" in line]
    only = f", only for {', '.join(sorted(scene.modules))}" if scene.modules else ""
    return Found(f"The module is not built for the running kernel {scene.release}{only}.",
                 f"apt install linux-headers-{scene.release}, then dkms autoinstall; or, in the"
                 " source: make && make install.", tuple(errors[:3]))


@check("module-index", "modprobe knows of it")
def module_index(scene: Scene) -> Outcome:
    """depmod was forgotten."""
    if scene.status.module.loaded or scene.release not in scene.modules:
        return MOOT
    if f"/{DRIVER}.ko" in (scene.system.read(f"/lib/modules/{scene.release}/modules.dep") or ""):
        return None
    return Found(f"The module is there, but modprobe does not know of it:"
                 f" {scene.modules[scene.release][0]}.", "depmod -a, then modprobe hv_synthrdp.")


@check("module-twice", "there is one of it")
def module_twice(scene: Scene) -> Outcome:
    """Which of them is loaded is depmod's choice."""
    files = scene.modules.get(scene.release, [])
    if len(files) < 2:
        return None if files else MOOT
    return Found("The module is installed more than once for this kernel.",
                 "Remove all but one, then depmod -a.", tuple(files), WARNING)


@check("module-blacklisted", "nothing forbids it to be loaded")
def module_blacklisted(scene: Scene) -> Outcome:
    """By modprobe's configuration, or on the kernel's command line."""
    if scene.status.module.loaded:
        return None
    for name, words in scene.modprobe:
        if words[0] == "blacklist" or (words[0] == "install" and len(words) > 2 and
                                       words[2].rpartition("/")[2] in ("false", "true")):
            return Found(f"The module is blacklisted in {name}.",
                         f"Remove that line from {name}, then modprobe {DRIVER}.",
                         (" ".join(words),))
    for option in ("module_blacklist", "modprobe.blacklist"):
        if DRIVER in scene.command_line.get(option, "").replace("-", "_").split(","):
            return Found(f"The module is blacklisted on the kernel's command line ({option}=).",
                         "Remove it there, in the boot loader's configuration, and reboot.")
    return None


def _secure_boot(scene: Scene) -> bool:
    return (scene.system.read(SECURE_BOOT) or "").endswith("\x01")


@check("module-rejected", "its signature is accepted", reads=(KERNEL_LOG, JOURNAL))
def module_rejected(scene: Scene) -> Outcome:
    """Secure Boot takes no module but those signed with a key that it knows."""
    if scene.status.module.loaded or not scene.has_module:
        return MOOT
    said = scene.system.kernel_said(REJECTED)
    lines = [said.string] if said else [
        line.text for line in scene.system.journal(f"--grep={DRIVER}.*rejected")]
    if not lines:
        return None
    return Found("The kernel rejects the module's signature (Key was rejected by service)"
                 + (": Secure Boot is on." if _secure_boot(scene) else "."),
                 "mokutil --import /var/lib/dkms/mok.pub (or the key that signed it), reboot, and"
                 " enrol it in a Basic session; or switch Secure Boot off in the VM's settings.",
                 tuple(lines[-1:]))


@check("module-unloaded", "the module is loaded")
def module_unloaded(scene: Scene) -> Outcome:
    """Though nothing speaks against it."""
    if scene.status.module.loaded:
        return None
    others = (module_index, module_blacklisted, module_rejected)
    if not scene.has_module or any(isinstance(other(scene), Found) for other in others):
        return MOOT
    return Found("The module is there but not loaded.",
                 f"modprobe {DRIVER}; if that fails, it says why, and the end of dmesg more.")


# The device, and the conversation on it

@check("device-held", "the driver has its devices")
def device_held(scene: Scene) -> Outcome:
    """Another driver has one, or none has."""
    for device in scene.status.devices:
        place, drivers = f"{DEVICES}/{device.instance}", "/sys/bus/vmbus/drivers"
        override = scene.system.read(f"{place}/driver_override")
        unset = (f"echo > {place}/driver_override; "
                 if override not in (None, "", "(null)", DRIVER) else "")
        bind = f"echo {device.instance} > {drivers}/{DRIVER}/bind"
        if device.driver not in (None, DRIVER):
            return Found(f"The {device.kind} device {device.instance} is held by the driver"
                         f" {device.driver}.",
                         f"Remove what binds it there, then: {unset}echo {device.instance} >"
                         f" {drivers}/{device.driver}/unbind; {bind}")
        if device.driver is None and scene.status.module.loaded:
            return Found(f"The {device.kind} device {device.instance} has no driver.",
                         unset + bind)
    return None if scene.status.devices and scene.status.module.loaded else MOOT


@check("rejected", "the host accepts the protocol's version")
def rejected(scene: Scene) -> Outcome:
    """It said no."""
    state = scene.status.control.state
    if state != "rejected":
        return None if state else MOOT
    return Found("The host rejects protocol version 1.0, the only one that is known.",
                 "`synthrdpctl enable` asks again. If the answer stays the same, please report it"
                 " with what `synthrdpctl report` prints.", _driver_said(scene))


@check("unanswered", "the host answers")
def unanswered(scene: Scene) -> Outcome:
    """It says nothing, or nothing sound."""
    state = scene.status.control.state
    if state in ("opening", "negotiating"):
        return Unknown("the conversation with the host is under way: look again in 10 s")
    if state != "failed":
        return None if state else MOOT
    said = _driver_said(scene)
    return Found("The host does not answer, or not soundly; the driver tries again every minute.",
                 "Restart the VM, or the host's Virtual Machine Management service (vmms). If that"
                 " does not help, please report it with what `synthrdpctl report` prints.", said)


def _driver_said(scene: Scene) -> tuple[str, ...]:
    said = scene.system.kernel_said(rf"{DRIVER} {CONTROL}: .*")
    return (said[0],) if said else ()


@check("switched-off", "it is switched on")
def switched_off(scene: Scene) -> Outcome:
    """And who switched it off."""
    switch, ready, server = scene.status.switch, scene.unit(READY), scene.server_unit
    if switch.on is not False:
        return MOOT if switch.on is None else None
    if switch.disabled_by:
        return Found(f"Enhanced Session is switched off: {switch.disabled_by} ({DISABLED}).",
                     "synthrdpctl enable")
    if ready.load == "masked":
        return Found(f"Enhanced Session is switched off: {READY} is masked.",
                     f"systemctl unmask {READY}, then synthrdpctl enable")
    if ready.exists and ready.active != "active" and server.active != "active":
        return Found(f"Enhanced Session is switched off because its server {server.name} is"
                     f" {server.how}.",
                     f"systemctl start {server.name}; if that fails, journalctl -u {server.name}"
                     " says why.")
    if "0" in (scene.command_line.get(f"{DRIVER}.enabled"), ) and not ready.exists:
        return Found("Enhanced Session is switched off on the kernel's command line"
                     f" ({DRIVER}.enabled=0).",
                     "synthrdpctl enable, and remove it from the boot loader's configuration.")
    for name, words in scene.modprobe:
        if "enabled=0" in words and not ready.exists:
            return Found(f"Enhanced Session is switched off in {name}, and no unit switches it on"
                         f" ({READY} is not installed).", "synthrdpctl enable, once a server runs.",
                         (" ".join(words),))
    return Found("Enhanced Session is switched off: somebody wrote 0 to the driver's switch, or"
                 f" stopped {READY}.", "synthrdpctl enable")
