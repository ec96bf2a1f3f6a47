"""dockerd with its own data, bridge and firewall rules, all of them in the sandbox."""

import subprocess
import shutil
from pathlib import Path

from engine import Engine, Failed, eventually

SOCKET = "unix:///run/docker.sock"


class Docker(Engine):
    name = "docker"
    programs = ("dockerd", "docker", "containerd", "iptables")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        # The one that came with the daemon, if there is another.
        own = Path(shutil.which("dockerd")).resolve().parents[1] / "bin/docker"
        self.client = str(own) if own.exists() else shutil.which("docker")
        self.daemon = None

    def command(self):
        return [self.client, "-H", SOCKET]

    def version(self):
        return self.ok("version", "--format", "{{.Server.Version}}")

    def start(self, *options):
        self.launch(*options)
        self.ok("load", "-q", "-i", self.images / "busybox.tar")

    def launch(self, *options):
        """Starts the daemon and waits until it answers."""
        log = open(self.scratch / "dockerd.log", "a")
        self.daemon = subprocess.Popen(
            ["dockerd", "--data-root", self.scratch / "data", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
             "-H", SOCKET, "--experimental", "--add-runtime", f"tested={self.runtime}", "--default-runtime", "tested",
             "--exec-opt", "native.cgroupdriver=cgroupfs", *options],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment)

        def answers():
            if self.daemon.poll() is not None:
                log = (self.scratch / "dockerd.log").read_text().strip().splitlines()
                raise Failed(f"dockerd did not start: {' | '.join(log[-3:])}")
            return self.do("info").code == 0 and self.do("version").code == 0

        eventually("An answer of dockerd", answers)

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()
            self.daemon = None

    def clean(self):
        left = self.ok("ps", "-a", "--format", "{{.Names}}").split()
        if left:
            self.ok("rm", "-f", "-v", *left)
        self.do("volume", "prune", "-f")
        return left
