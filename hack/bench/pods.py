"""`berth run` and `berth daemon` for the benchmarks: pods of the built-in image in a network and a group of their own."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import measure

PATIENCE = 600
POD = """---
apiVersion: v1
kind: Pod
metadata: {{name: pod-{number}}}
spec:
  restartPolicy: {restart}
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: berth.local/helper
    imagePullPolicy: Never
    command: {command}
{more}"""


def arguments(description, rounds):
    """The command line, with a place for the node."""
    parser = measure.arguments(description, rounds)
    parser.add_argument("--on", type=pathlib.Path, default=pathlib.Path("/dev/shm"),
                        help="directory for the node; in memory, a disk that others keep busy is not measured (default: %(default)s)")
    return parser


def place(options):
    """A directory for a node, which goes when it is left."""
    return tempfile.TemporaryDirectory(prefix="berth-bench-", dir=options.on)


def manifest(count, command, more="", restart="Always"):
    """So many pods of one container; `{number}` in its command and in the fields that follow is the pod's."""
    parts = {"restart": restart, "command": command, "more": more}
    return "".join(POD.format(number=number, **{key: text.replace("{number}", str(number)) for key, text in parts.items()})
                   for number in range(count))


class Node:
    """A program of berth's that runs pods, with a root directory, a group and namespaces of its own."""

    def __init__(self, options, directory):
        self.berth = measure.program(options, "berth")
        self.directory = pathlib.Path(directory)
        self.root = self.directory / "root"
        self.group = f"/berth-bench-{os.getpid()}"
        self.output = self.directory / "output"
        self.process = None
        self.used = 0.0

    def command(self, *arguments):
        return [self.berth, "--root", self.root, "--cgroup-root", self.group, *arguments]

    def start(self, *arguments, output=None):
        """Starts berth; what it prints goes to a file, or where it is told."""
        with open(self.output, "w+b") as file:
            output = output or file
            self.process = subprocess.Popen(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def run(self, text, output=None):
        """Starts `berth run` of a manifest."""
        path = self.directory / "pods.yaml"
        path.write_text(text)
        self.start("run", path, output=output)

    def start_daemon(self):
        """Starts the daemon, and returns when it is the one that pods are handed to."""
        self.start("daemon")
        lock = self.root / "var/lib/berth/kubelet/pod-locks/daemon.lock"
        deadline = time.monotonic() + PATIENCE
        while not lock.exists() or lock.read_text().strip() != str(self.process.pid):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the daemon does not start:\n{self.output.read_text()}")
            time.sleep(0.02)

    def wait_for(self, pattern, count, what):
        """Waits until so many lines of the output match; returns when that was, in seconds of the monotonic clock."""
        compiled = re.compile(pattern.encode(), re.MULTILINE)
        deadline = time.monotonic() + PATIENCE
        while len(compiled.findall(self.output.read_bytes())) < count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"not {count} times {what}:\n{self.output.read_text()[-3000:]}")
            time.sleep(0.02)
        return time.monotonic()

    def stop(self, number=signal.SIGINT):
        """Ends berth, and returns how long that took in seconds; `used` is its processor time then, its children's included."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.used = usage.ru_utime + usage.ru_stime
        return time.monotonic() - began

    def close(self):
        """Ends whatever is left."""
        if self.process and self.process.poll() is None:
            self.stop()

    def leftovers(self):
        """What is there still of the pods: their processes, interfaces, groups and directories."""
        links = pathlib.Path("/sys/class/net")
        groups = [path for path in pathlib.Path("/sys/fs/cgroup").glob("*" + self.group + "/kubepods/*/pod*")]
        places = [self.root / "run/berth/sandboxes", self.root / "var/lib/berth/sandboxes", self.root / "var/lib/berth/kubelet/pods"]
        files = [path for place in places if place.is_dir() for path in place.iterdir()]
        return [*self.shims(), *[link.name for link in links.glob("veth*")], *map(str, groups), *map(str, files)]

    def shims(self):
        """The shims of this node."""
        own = str(self.root).encode()
        parents = {}
        for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if own in (text := command.read_bytes()) and b"berth-oci" in text:
                    status = command.with_name("stat").read_text()
                    parents[int(command.parent.name)] = int(status.rpartition(")")[2].split()[1])
            except OSError:
                continue
        # Of a shim's children, which are copies of it until they execute something, only the first one stays.
        return [pid for pid, parent in parents.items() if parent not in parents]

    def group_seconds(self):
        """Processor time of everything in the pods' groups: shims, containers, commands in them."""
        v1 = pathlib.Path("/sys/fs/cgroup/cpuacct" + self.group) / "cpuacct.usage"
        if v1.exists():
            return int(v1.read_text()) / 1e9
        v2 = pathlib.Path("/sys/fs/cgroup" + self.group) / "cpu.stat"
        return int(re.search(r"usage_usec (\d+)", v2.read_text()).group(1)) / 1e6


def seconds(pid, children=False):
    """Processor time of a process so far; with that of its children that have ended, if wanted."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15 if children else 13]) / os.sysconf("SC_CLK_TCK")


def proportional_kib(pid):
    """Memory of a process, of what it shares its part, in KiB."""
    return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE).group(1))


def resident_mb(pid):
    """Resident memory of a process, in MB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def percentile(values, part):
    """The value below which that part of all values is."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]
