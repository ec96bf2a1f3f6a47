"""podman, with storage, state and configuration of its own."""

import json

from engine import Engine

# Podman writes events to the journal and asks systemd for cgroups where it is not told otherwise.
CONFIGURATION = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "{networks}"
"""


class Podman(Engine):
    name = "podman"
    is_podman = True
    programs = ("podman", "conmon", "iptables")

    def command(self):
        return ["podman", "--root", str(self.scratch / "root"), "--runroot", "/run/podman-root",
                "--tmpdir", "/run/podman-tmp", "--storage-driver", "overlay", "--runtime", self.runtime]

    def version(self):
        return self.ok("version", "--format", "{{.Client.Version}}")

    def start(self):
        path = self.scratch / "containers.conf"
        path.write_text(CONFIGURATION.format(networks=self.scratch / "networks"))
        self.environment["CONTAINERS_CONF"] = str(path)
        self.ok("load", "-q", "-i", self.images / "busybox.tar")

    def clean(self):
        left = [one["Names"][0] for one in json.loads(self.ok("ps", "-a", "--format", "json") or "[]")]
        if left:
            self.ok("rm", "-f", "-t", "0", *left)
        self.do("pod", "rm", "-f", "-a", "-t", "0")
        self.do("volume", "prune", "-f")
        return left
