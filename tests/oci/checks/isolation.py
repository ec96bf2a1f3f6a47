"""Namespaces that are shared, joined or private, the network, and what images are built with."""

import os
import subprocess
import urllib.request

from engine import EVERYONE, IMAGE, Skip, check, contains, eventually, same, true


@check("its own processes, host name, mounts, network", *EVERYONE)
def own(e):
    text = e.script([], "ls -d /proc/[0-9]* | wc -l; for n in pid uts mnt net ipc; do readlink /proc/self/ns/$n; done")
    lines = text.splitlines()
    true(int(lines[0]) <= 4, f"The container sees {lines[0]} processes.")
    for line in lines[1:]:
        same(f"The host's {line} namespace", os.readlink("/proc/self/ns/" + line.split(":")[0]) == line, False)


@check("--pid host and --pid container:", *EVERYONE)
def pid(e):
    same("The host's processes", e.script(["--pid", "host"], "readlink /proc/self/ns/pid"), os.readlink("/proc/self/ns/pid"))
    name = e.background([], "sleep", "4321")
    contains("Another container's processes", e.box(["--pid", f"container:{name}"], "ps"), "sleep 4321")


@check("all processes of a container end with it, without a PID namespace too")
def ends_together(e):
    host = e.background(["--pid", "host"], "sh", "-c", "sleep 4322 & sleep 4323")
    eventually("Both processes", lambda: alive("4322") and alive("4323"))
    e.ok("rm", "-f", host)
    eventually("The end of all its processes", lambda: not alive("4322") and not alive("4323"))


@check("--ipc shareable and --ipc container:", *EVERYONE)
def ipc(e):
    name = e.background(["--ipc", "shareable"])
    e.inside(name, "echo shared > /dev/shm/file")
    same("The other's shared memory", e.box(["--ipc", f"container:{name}"], "cat", "/dev/shm/file"), "shared")
    same("The namespace", e.script(["--ipc", f"container:{name}"], "readlink /proc/self/ns/ipc"), e.inside(name, "readlink /proc/self/ns/ipc"))
    if e.name != "rootless" or os.path.isdir("/dev/mqueue"):  # it binds the host's
        e.script(["--ipc", "host"], "test -d /dev/shm")


@check("--uts host", *EVERYONE)
def uts(e):
    same("The host's name", e.box(["--uts", "host"], "hostname"), os.uname().nodename)


@check("--network none, host, container:", *EVERYONE)
def network(e):
    same("Links without a network", e.script(["--network", "none"], "ls /sys/class/net").split(), ["lo"])
    same("The host's network", e.script(["--network", "host"], "readlink /proc/self/ns/net"), os.readlink("/proc/self/ns/net"))
    name = e.background([])
    same("Another's network", e.script(["--network", f"container:{name}"], "readlink /proc/self/ns/net"),
         e.inside(name, "readlink /proc/self/ns/net"))


@check("a bridge, containers that reach each other, and a published port")
def bridge(e):
    name = e.background(["-p", "127.0.0.1:18081:80"], "sh", "-c", "mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www")
    address = e.inspect(name, ".NetworkSettings.IPAddress")
    eventually("The server", lambda: e.do("exec", name, "wget", "-q", "-O", "-", "http://127.0.0.1/").code == 0)
    same("From another container", e.box([], "wget", "-q", "-O", "-", f"http://{address}/"), "hello")
    with urllib.request.urlopen("http://127.0.0.1:18081/", timeout=10) as answer:
        same("Through the published port", answer.read(), b"hello\n")


@check("a network in user mode, and a published port", "rootless")
def user_network(e):
    if not os.path.exists("/dev/net/tun"):
        raise Skip("there is no tun driver")
    name = e.background(["--network", "slirp4netns", "-p", "127.0.0.1:18082:80"], "sh", "-c",
                        "mkdir /www; echo hello > /www/index.html; ip addr show tap0; httpd -f -p 80 -h /www")
    eventually("The server", lambda: e.do("exec", name, "wget", "-q", "-O", "-", "http://127.0.0.1/").code == 0)
    contains("The link", e.ok("logs", name), "10.0.2.")
    with urllib.request.urlopen("http://127.0.0.1:18082/", timeout=10) as answer:
        same("Through the published port", answer.read(), b"hello\n")


@check("--sysctl", *EVERYONE)
def sysctl(e):
    text = e.script(["--sysctl", "net.core.somaxconn=321", "--sysctl", "kernel.shm_rmid_forced=1"],
                    "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced")
    same("The values", text.split(), ["321", "1"])
    message = e.refused("run", "--rm", "--sysctl", "kernel.panic=5", IMAGE, "true")
    contains("The refusal of one of the whole machine", message, "kernel.panic")


@check("build runs its steps", *EVERYONE)
def build(e):
    directory = e.scratch / "build"
    directory.mkdir(exist_ok=True)
    (directory / "Dockerfile").write_text(
        f"FROM {IMAGE}\nRUN id -u > /built && echo step >> /built\nUSER nobody\nRUN id -u > /tmp/user\nENTRYPOINT [\"cat\", \"/built\", \"/tmp/user\"]\n")
    extra = []
    if e.is_podman:
        # Without root only this kind has a network that it may make.
        extra = ["--isolation", "rootless" if e.name == "rootless" else "oci", "--pull=never"]
    environment = dict(e.environment, DOCKER_BUILDKIT="0")
    e.ok("build", *extra, "-t", "berth.local/built", directory, environment=environment)
    same("What the image has", e.ok("run", "--rm", "berth.local/built").split(), ["0", "step", "65534"])
    e.ok("rmi", "berth.local/built")


@check("a pod's containers share what they should", "podman")
def pod(e):
    e.ok("pod", "create", "--name", "tested", "--infra-image", IMAGE, "--infra-command", "sleep 1000", "--share", "net,ipc,uts")
    first = e.new_name()
    e.ok("run", "-d", "--pod", "tested", "--name", first, IMAGE, "sh", "-c", "echo in the pod | nc -l -p 9000")
    second = eventually("An answer in the pod", lambda: (done := e.do(
        "run", "--rm", "--pod", "tested", IMAGE, "nc", "127.0.0.1", "9000", stdin="")).code == 0 and done.out)
    same("What was said", second, "in the pod\n")
    e.ok("pod", "stop", "-t", "0", "tested")
    e.ok("pod", "rm", "tested")


@check("OCI hooks", "podman")
def hooks(e):
    import json
    directory = e.scratch / "hooks"
    directory.mkdir(exist_ok=True)
    for stage in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"):
        program = ["/bin/sh", "-c", f"cat > {e.scratch}/hook-{stage}"]
        if stage in ("startContainer",):
            program = ["/bin/sh", "-c", "cat > /tmp/hook-startContainer"]
        (directory / f"{stage}.json").write_text(json.dumps({
            "version": "1.0.0", "when": {"always": True}, "stages": [stage],
            "hook": {"path": "/bin/sh", "args": program},
        }))
    name = e.new_name()
    same("The output", e.ok("--hooks-dir", directory, "run", "--name", name, IMAGE, "sh", "-c", "grep -c ociVersion /tmp/hook-startContainer"), "1")
    e.ok("--hooks-dir", directory, "rm", name)
    for stage, status in (("prestart", "creat"), ("createRuntime", "creat"), ("createContainer", "creat"),
                          ("poststart", ""), ("poststop", "stopped")):
        state = json.loads((e.scratch / f"hook-{stage}").read_text())
        contains(f"The status in {stage}", state["status"], status)
        true("pid" in state or stage == "poststop", f"The state in {stage} has no pid.")


@check("--systemd=always has the mounts of an init", "podman")
def systemd_mode(e):
    text = e.script(["--systemd=always"], "grep -E ' (/run|/tmp|/run/lock|/var/log/journal|/sys/fs/cgroup/systemd) ' /proc/mounts; echo $container; "
                    "mkdir /sys/fs/cgroup/systemd/own && echo delegated")
    contains("The mounts", text, "tmpfs /run ", "tmpfs /tmp ", "podman", "delegated")


def alive(argument):
    """Whether a `sleep` with this argument runs in the sandbox."""
    return subprocess.run(["pgrep", "-f", f"^sleep {argument}$"], capture_output=True).returncode == 0
