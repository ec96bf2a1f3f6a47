"""Pods for benchmarks, straight on the shim: a sandbox directory, `berth-oci shim`, and its socket (shim/src/protocol.rs).

Nothing of the daemon is involved, so that the figures are the shim's alone.
"""

import errno
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time

CONTAINER = "container"


class Pod:
    """One pod whose container runs a program of the given root file system."""

    def __init__(self, berth_oci, directory, rootfs, group):
        self.directory = pathlib.Path(directory)
        self.rootfs = rootfs
        self.group = group
        self.log = self.directory / "logs" / "0.log"
        self.directory.mkdir()
        self.log.parent.mkdir()
        sandbox = {
            "id": self.directory.name,
            "cgroup": f"{group}/sandbox",
            "hostname": "bench",
            "network": True,
            "ipc": True,
            "shared_pid": False,
            "user": None,
            "sysctls": {},
            "oom_score_adj": 0,
            "shm_size": 1 << 26,
        }
        (self.directory / "sandbox.json").write_text(json.dumps(sandbox))
        started = subprocess.run([berth_oci, "shim", self.directory], stdin=subprocess.DEVNULL, check=False)
        if started.returncode != 0:
            sys.exit(f"the shim of {self.directory} did not start")
        self.record = json.loads((self.directory / "shim.json").read_text())
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(self.directory / "shim.sock"))
        self.calls = 0
        self.events = []
        self.call("subscribe")

    def create(self, args, log_max_size=0, log_max_files=1):
        """Makes the container, without starting it."""
        bundle = self.directory / "containers" / CONTAINER
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(self.configuration(args)))
        self.call(
            "create",
            id=CONTAINER,
            rootfs="directory",
            log_path=str(self.log),
            log_max_size=log_max_size,
            log_max_files=log_max_files,
            stdin=False,
            stdin_once=False,
        )

    def start(self):
        """Lets the container's program run."""
        self.call("start", container=CONTAINER)

    def wait(self):
        """Waits for the container's end; returns its exit code."""
        while True:
            for event in self.events:
                if event["event"] == "exited":
                    return event["exit_code"]
            self.events.append(self.receive()["event"])

    def shut_down(self):
        """Ends the pod and removes its cgroups."""
        self.send({"op": "shutdown"})
        while self.socket.recv(4096):
            pass
        self.socket.close()
        remove_group(self.group)

    def call(self, operation, **parameters):
        """Sends a request and returns its response; events that come in between are kept."""
        seq = self.send({"op": operation, **parameters})
        while True:
            message = self.receive()
            if "event" in message:
                self.events.append(message["event"])
            elif message["reply"]["seq"] == seq:
                result = message["reply"]["result"]
                if "Err" in result:
                    sys.exit(f"{operation}: {result['Err']['message']}")
                return result["Ok"]

    def send(self, request):
        self.calls += 1
        frame = json.dumps({"seq": self.calls, "request": request}).encode()
        self.socket.sendall(struct.pack("<I", len(frame)) + frame)
        return self.calls

    def receive(self):
        (length,) = struct.unpack("<I", self.exactly(4))
        return json.loads(self.exactly(length))

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                sys.exit(f"the shim of {self.directory} closed the connection; see its shim.log")
            data += part
        return data

    def configuration(self, args):
        return {
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": str(self.rootfs), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {
                "cgroupsPath": f"/{self.group}/{CONTAINER}",
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "network", "ipc", "uts", "cgroup")],
            },
        }


def remove_group(group):
    """Removes a group that is empty but for empty groups, from every hierarchy, once the shim has left it by ending."""
    for root in [pathlib.Path("/sys/fs/cgroup"), *pathlib.Path("/sys/fs/cgroup").iterdir()]:
        top = root / group
        if root.is_dir() and top.is_dir():
            for path, _, _ in os.walk(top, topdown=False):
                remove_empty(path)


def remove_empty(path):
    deadline = time.monotonic() + 30
    while True:
        try:
            return os.rmdir(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def make_rootfs(directory, program):
    """A root file system with one static program, compiled from C, at /bin/program."""
    rootfs = directory / "rootfs"
    for name in ("bin", "proc", "dev"):
        (rootfs / name).mkdir(parents=True)
    source = directory / "program.c"
    source.write_text(program)
    subprocess.run(["cc", "-O2", "-static", "-o", rootfs / "bin" / "program", source], check=True)
    return rootfs
