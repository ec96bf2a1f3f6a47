"""A place where an engine may do as it likes: namespaces and a cgroup of its own, which are gone afterwards.

The engine gets its own mount, network, UTS, IPC, PID and cgroup namespaces. In them /run and /var/lib/cni are empty, the
network has `lo` and nothing else, `/sys/fs/cgroup` shows only the sandbox's own part of every hierarchy, and all
processes end with the first one. Firewall rules, links, mounts and cgroups of the machine are not touched.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
# CLONE_NEW*: mount, cgroup, UTS, IPC, PID, network.
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


def run(inside):
    """Calls `inside` in a new sandbox and returns its exit code."""
    own = Cgroups(f"berth-engines-{os.getpid()}")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = enter(own, inside)
        except BaseException as error:  # whatever it is, this process must not return into the caller's code
            print(f"the sandbox failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        own.remove()
    return os.waitstatus_to_exitcode(status)


def enter(own, inside):
    """In a child: makes the namespaces, runs `inside` as the first process of the PID namespace, and waits for it."""
    parent_death(signal.SIGKILL)
    own.join()
    check(libc.unshare(NAMESPACES), "unshare")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            parent_death(signal.SIGKILL)
            mounts(own)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            code = as_init(inside)
        except BaseException as error:
            print(f"the sandbox failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def as_init(inside):
    """Runs `inside` in a child, and reaps what is orphaned until it ends."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = inside()
        except BaseException as error:
            import traceback
            traceback.print_exc()
            print(f"the sandbox failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            sys.stdout.flush()
            os._exit(code)
    while True:
        pid, status = os.wait()
        if pid == child:
            return max(os.waitstatus_to_exitcode(status), 0) or (1 if os.WIFSIGNALED(status) else 0)


def mounts(own):
    """The sandbox's own view of /proc, /run and the cgroups."""
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
    mount("proc", "proc", "/proc")
    mount("tmpfs", "tmpfs", "/run")
    # Where CNI plugins remember addresses and results, whoever runs them.
    os.makedirs("/var/lib/cni", exist_ok=True)
    mount("tmpfs", "tmpfs", "/var/lib/cni")
    MNT_DETACH = 2
    check(libc.umount2(str(CGROUPS).encode(), MNT_DETACH), f"umount {CGROUPS}")
    hierarchies = own.hierarchies
    if hierarchies == [CGROUPS]:
        mount("cgroup2", "cgroup2", str(CGROUPS))
        return
    mount("tmpfs", "tmpfs", str(CGROUPS), "mode=755")
    for hierarchy in hierarchies:
        os.mkdir(hierarchy)
        if hierarchy.name == "unified":
            mount("cgroup2", "cgroup2", str(hierarchy))
        else:
            options = "none,name=systemd" if hierarchy.name == "systemd" else hierarchy.name
            mount("cgroup", "cgroup", str(hierarchy), options)


class Cgroups:
    """A directory in each hierarchy, named alike."""

    def __init__(self, name):
        self.name = name
        found = set()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            point = Path(before.split()[4])
            if after.split()[0] in ("cgroup", "cgroup2") and CGROUPS in (point, point.parent):
                found.add(point)
        self.hierarchies = sorted(found)

    def join(self):
        for hierarchy in self.hierarchies:
            directory = hierarchy / self.name
            directory.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (directory / name).exists() and hierarchy.name == "cpuset":
                    (directory / name).write_text((hierarchy / name).read_text())
            (directory / "cgroup.procs").write_text("0")

    def remove(self):
        """Removes the directories. The processes in them died with the PID namespace, and are reaped at any moment."""
        deadline = time.monotonic() + 20
        for hierarchy in self.hierarchies:
            top = hierarchy / self.name
            for directory, _, _ in os.walk(top, topdown=False):
                while os.path.exists(directory):
                    try:
                        os.rmdir(directory)
                    except OSError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.01)


def bind(source, target):
    """Shows a file or directory at a second place, in the sandbox only."""
    MS_BIND = 0x1000
    check(libc.mount(str(source).encode(), str(target).encode(), None, MS_BIND, None), f"bind {source} on {target}")


def unbind(target):
    check(libc.umount2(str(target).encode(), 0), f"umount {target}")


def mount(kind, source, target, options=""):
    result = libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode() or None)
    check(result, f"mount {kind} on {target}")


def parent_death(number):
    PR_SET_PDEATHSIG = 1
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def leftovers(scratch):
    """What is still there of an engine that was stopped: processes but ours, mounts below its directory, cgroups."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (1, os.getpid()):
                try:
                    line = (entry / "cmdline").read_text().replace("\0", " ").strip()
                except OSError:
                    continue
                if line:
                    found.append(f"process {entry.name} {line}")
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split()[4]
            if point.startswith(scratch) and not point.endswith(("/overlay", "/data", "/containers")):
                found.append(f"mount {point}")
        for directory, inner, _ in os.walk(CGROUPS):
            # What a container had has its id in the name. Parents, and podman's pods in hierarchies without a controller,
            # are kept by the engine.
            found += [f"cgroup {directory}/{name}" for name in inner
                      if name.startswith(("libpod-", "box")) or len(name) == 64 and not directory.endswith("/libpod_parent")]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
