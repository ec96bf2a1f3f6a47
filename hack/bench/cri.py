"""CRI servers for the benchmarks: berth, and Debian's containerd with runc, each with the same network and images."""

import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import measure

IMAGE = "bench.local/helper:1"
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "bench0",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def isolate():
    """Runs this script again in a network and a mount namespace of its own, so that nothing of the machine is touched."""
    measure.isolate()
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def archive(directory, helper, entrypoint=("/bin/helper",), name=IMAGE, extra=()):
    """An OCI archive with the helper program, and layers of `extra` (name, bytes) files; returns its path."""
    layout = pathlib.Path(directory) / "layout"
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    layers, diff_ids = [], []
    for files in [[("bin/helper", pathlib.Path(helper).read_bytes())], *[[file] for file in extra]]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, data in files:
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), 0o755
                tar.addfile(entry, io.BytesIO(data))
        diff_ids.append("sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest())
        layers.append(blob(gzip.compress(buffer.getvalue(), 6), "application/vnd.oci.image.layer.v1.tar+gzip"))
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    configuration = {
        "architecture": machine,
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint)},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config = blob(json.dumps(configuration).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
    top = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    top["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    path = pathlib.Path(directory) / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(layout, arcname=".")
    return path


def push(directory, address, repository, tag):
    """Puts what [`archive`] has made last into a registry."""
    layout = pathlib.Path(directory) / "layout"
    registry = http.client.HTTPConnection(address)

    def ask(method, path, body=None, headers=None):
        registry.request(method, path, body=body, headers=headers or {})
        answer = registry.getresponse()
        answer.read()
        if answer.status not in (201, 202):
            sys.exit(f"the registry answers {method} {path} with {answer.status}")
        return answer

    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    for path in (layout / "blobs" / "sha256").iterdir():
        location = ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"].partition(address)[2]
        headers = {"Content-Type": "application/octet-stream"}
        ask("PUT", f"{location}&digest=sha256:{path.name}", path.read_bytes(), headers)
    manifest = (layout / "blobs" / "sha256" / top["digest"].removeprefix("sha256:")).read_bytes()
    ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": top["mediaType"]})


class Server:
    """A CRI server in a directory of its own."""

    name = ""

    def __init__(self, options, directory, extra=()):
        self.directory = pathlib.Path(directory) / self.name
        self.extra = extra
        self.directory.mkdir()
        self.group = f"/berth-bench-{os.getpid()}-{self.name}"
        self.helper = measure.program(options, "berth-helper")
        self.client_program = measure.program(options, "examples/cri-bench")
        self.process = None
        self.client = None
        network = json.loads(json.dumps(NETWORK))
        # Both live in one network namespace: they share the bridge, and have addresses of their own.
        network["plugins"][0]["bridge"] = f"bench-{self.name}"[:15]
        network["plugins"][0]["ipam"]["ranges"] = [[{"subnet": self.subnet}]]
        network["plugins"][0]["ipam"]["dataDir"] = str(self.directory / "ipam")
        self.networks = self.directory / "net.d"
        self.networks.mkdir()
        (self.networks / "10-bench.conflist").write_text(json.dumps(network))

    def launch(self, command):
        with open(self.directory / "log", "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def connect(self):
        command = [self.client_program, self.socket, IMAGE, self.group, self.directory / "logs"]
        self.client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, line):
        """One command of the client; its figures."""
        self.client.stdin.write(line + "\n")
        self.client.stdin.flush()
        answer = self.client.stdout.readline()
        if not answer:
            log = (self.directory / "log").read_text().strip().splitlines()
            sys.exit(f"{self.name}: the client failed at {line!r}; the server said: {' | '.join(log[-3:])}")
        return json.loads(answer)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Removes every pod, and ends the server."""
        self.do("drain")
        self.client.stdin.close()
        self.client.wait()
        self.process.terminate()
        self.process.wait()
        for hierarchy in pathlib.Path("/sys/fs/cgroup").glob("*/"):
            remove_groups(hierarchy / self.group.strip("/"))
        remove_groups(pathlib.Path("/sys/fs/cgroup") / self.group.strip("/"))


def remove_groups(group):
    """Removes an empty cgroup of ours with those below it."""
    if not group.is_dir():
        return
    for below in [path for path in group.iterdir() if path.is_dir()]:
        remove_groups(below)
    group.rmdir()


class Berth(Server):
    name = "berth"
    subnet = "10.99.0.0/16"

    def __init__(self, options, directory, extra=()):
        super().__init__(options, directory, extra)
        self.program = measure.program(options, "berth")
        self.oci = measure.program(options, "berth-oci")
        self.root = self.directory / "root"
        self.socket = self.directory / "cri.sock"
        config = self.directory / "config.toml"
        # The pods' groups are plain ones, under containerd too.
        config.write_text(f'cgroup_driver = "cgroupfs"\n[network]\nconf_dir = "{self.networks}"\nplugins = "built-in"\n')
        self.command = [self.program, "--root", self.root, "cri", "--config", config, "--socket", self.socket]
        os.environ["BERTH_OCI"] = str(self.oci)
        image = archive(self.directory, self.helper, extra=self.extra)
        subprocess.run([self.program, "--root", self.root, "image", "import", image], check=True, stdout=subprocess.DEVNULL)

    def start(self):
        self.launch(self.command)
        self.connect()
        self.do("ready 0")


class Containerd(Server):
    name = "containerd"
    subnet = "10.98.0.0/16"

    def __init__(self, options, directory, extra=()):
        super().__init__(options, directory, extra)
        self.socket = self.directory / "containerd.sock"
        config = self.directory / "config.toml"
        config.write_text(f"""version = 2
root = "{self.directory}/root"
state = "{self.directory}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "bench.local/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{self.networks}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
""")
        self.command = ["containerd", "--config", config, "--log-level", "warn"]

    @staticmethod
    def missing():
        """Whether something of it is not installed."""
        there = all(shutil.which(name) for name in ("containerd", "containerd-shim-runc-v2", "runc", "ctr"))
        if not there or not pathlib.Path("/usr/lib/cni/bridge").exists():
            print("containerd   or runc or containernetworking-plugins is not installed, left out", file=sys.stderr)
            return True
        return False

    def start(self):
        self.launch(self.command)
        self.connect()
        self.do("ready 0")
        pause = archive(self.directory, self.helper, ("/bin/helper", "sleep", "1000000000"), "bench.local/pause:1")
        for image in (pause, archive(self.directory, self.helper, extra=self.extra)):
            command = ["ctr", "--address", self.socket, "--namespace", "k8s.io", "images", "import", image]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            listed = subprocess.run(["ctr", "--address", self.socket, "--namespace", "k8s.io", "images", "ls", "-q"],
                                    check=True, capture_output=True, text=True).stdout
            if IMAGE in listed:
                return
            time.sleep(0.1)


def servers(options, directory, extra=()):
    """Those that are there, started; their image has the `extra` (name, bytes) files."""
    found = [Berth(options, directory, extra)]
    if not Containerd.missing():
        found.append(Containerd(options, directory, extra))
    for server in found:
        server.start()
    return found
