"""containerd, and `ctr` as its client."""

import subprocess

from engine import IMAGE, Engine, Failed, eventually

ADDRESS = "/run/containerd-tested/containerd.sock"


# ctr drops the output of a program that ends before a thread of ctr has opened the FIFO which it is read from.
LINGER = ["sh", "-c", "sleep 0.2; exec \"$@\"", "sh"]


class Containerd(Engine):
    name = "containerd"
    programs = ("containerd", "ctr", "containerd-shim-runc-v2")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.daemon = None

    def command(self):
        return ["ctr", "--address", ADDRESS]

    def version(self):
        return self.ok("version").split("Server:")[1].split("Version:")[1].split()[0]

    def start(self):
        log = open(self.scratch / "containerd.log", "a")
        configuration = self.scratch / "containerd.toml"
        configuration.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self.daemon = subprocess.Popen(
            ["containerd", "--config", configuration, "--root", self.scratch / "root", "--state", "/run/containerd-tested",
             "--address", ADDRESS], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment)

        def answers():
            if self.daemon.poll() is not None:
                log = (self.scratch / "containerd.log").read_text().strip().splitlines()
                raise Failed(f"containerd did not start: {' | '.join(log[-3:])}")
            return self.do("version").code == 0

        eventually("An answer of containerd", answers)
        self.ok("image", "import", self.images / "busybox.tar")

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()
            self.daemon = None

    def clean(self):
        left = self.ok("containers", "ls", "-q").split()
        for name in left:
            self.do("tasks", "kill", "--all", "-s", "KILL", name)
            self.do("tasks", "rm", "-f", name)
            self.ok("containers", "rm", name)
        return left

    # --- containers, as ctr starts them ---

    def box(self, options, *program, **more):
        return self.ok("run", "--rm", "--runc-binary", self.runtime, *options, IMAGE, self.new_name(), *LINGER, *program, **more)

    def background(self, options, *program):
        name = self.new_name()
        # A pipe that nobody reads would keep this command's output open.
        self.ok("run", "-d", "--null-io", "--runc-binary", self.runtime, *options, IMAGE, name,
                *(program or ("sleep", "1000")))
        return name

    def inside(self, name, text):
        return self.ok("tasks", "exec", "--exec-id", self.new_name(), name, "sh", "-c", text)

    def status(self, name):
        """RUNNING, PAUSED, STOPPED, or nothing."""
        for line in self.ok("tasks", "ls").splitlines()[1:]:
            fields = line.split()
            if fields[0] == name:
                return fields[2]
        return ""
