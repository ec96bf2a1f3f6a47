"""podman run by an ordinary user, who has a range of subordinate ids."""

import os
from pathlib import Path

import sandbox
from podman import CONFIGURATION, Podman

USER, ID, SUBORDINATE = "tested", 1500, 200000


class Rootless(Podman):
    name = "rootless"
    programs = (*Podman.programs, "newuidmap", "slirp4netns", "setpriv")

    def command(self):
        run = f"/run/user/{ID}"
        environment = [f"PATH={os.environ['PATH']}", f"HOME={self.home}", f"USER={USER}", f"XDG_RUNTIME_DIR={run}",
                       f"CONTAINERS_CONF={self.home}/containers.conf", f"TMPDIR={self.environment['TMPDIR']}"]
        return ["setpriv", f"--reuid={ID}", f"--regid={ID}", "--init-groups", "--inh-caps=-all", "env", "-i", *environment,
                "podman", "--storage-driver", "overlay", "--runtime", self.runtime]

    @property
    def home(self):
        return self.scratch / "home"

    def start(self):
        self.make_user()
        # Without root there is no bridge, and a user-mode network only where a check asks for one.
        self.home.mkdir()
        (self.home / "containers.conf").write_text(
            "[containers]\nnetns = \"none\"\n" + CONFIGURATION.format(networks=self.home / "networks"))
        for path in (self.scratch, self.home, Path(f"/run/user/{ID}")):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, ID, ID)
        (self.scratch / "busybox.tar").write_bytes((self.images / "busybox.tar").read_bytes())
        self.ok("load", "-q", "-i", self.scratch / "busybox.tar")

    def make_user(self):
        """The sandbox gets a user that the machine has not got, and one more who may use the tun driver."""
        ids = f"{USER}:{SUBORDINATE}:65536\n"
        for path, text in (("/etc/passwd", f"{USER}:x:{ID}:{ID}::{self.home}:/bin/sh\n"), ("/etc/group", f"{USER}:x:{ID}:\n"),
                           ("/etc/subuid", ids), ("/etc/subgid", ids)):
            own = self.scratch / Path(path).name
            own.write_text((Path(path).read_text() if "sub" not in path else "") + text)
            sandbox.bind(own, path)
        if os.path.exists("/dev/net/tun"):
            os.mknod("/run/tun", 0o20666, os.stat("/dev/net/tun").st_rdev)
            os.chmod("/run/tun", 0o666)
            sandbox.bind("/run/tun", "/dev/net/tun")

    def stop(self):
        # The process that keeps the user namespace between commands.
        self.do("system", "migrate")
