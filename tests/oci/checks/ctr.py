"""What `ctr` can ask for: fewer things than the other clients, and closer to the runtime."""

import json
import os
import subprocess
from pathlib import Path

from engine import IMAGE, check, contains, eventually, same, true, unified
from checks.isolation import alive
from containerd import LINGER
from checks.process import NET_ADMIN, SYS_ADMIN, capabilities

MIB = 1 << 20


@check("run, its output and its exit code", "containerd")
def run(e):
    done = e.do("run", "--rm", "--runc-binary", e.runtime, IMAGE, e.new_name(), "sh", "-c", "sleep 0.2; echo out; echo err >&2; exit 7")
    same("The output", (done.code, done.out, done.err), (7, "out\n", "err\n"))
    done = e.do("run", "--rm", "--runc-binary", e.runtime, IMAGE, e.new_name(), "no-such-program")
    true(done.code != 0, "A missing program can be run.")
    contains("The message", done.err + done.out, "no-such-program")


@check("terminals of run and exec", "containerd")
def terminals(e):
    t = e.terminal("run", "--rm", "-t", "--runc-binary", e.runtime, IMAGE, e.new_name(), "sh", size=(33, 101))
    dialogue(t, "33 101")
    t.resize(44, 120)
    t.send("until stty size | grep '44 120'; do sleep 0.1; done; echo resize''d\n")
    t.expect("resized")
    t.send("exit 6\n")
    same("The exit code of run", t.wait(), 6)
    name = e.background([])
    t = e.terminal("tasks", "exec", "-t", "--exec-id", "shell", name, "sh", size=(22, 77))
    dialogue(t, "22 77")
    t.send("exit 8\n")
    same("The exit code of exec", t.wait(), 8)


def dialogue(t, size):
    t.send("tty\n")
    t.expect("/dev/pts/")
    t.send(f"until stty size | grep '{size}'; do sleep 0.1; done; echo siz''ed\n")
    t.expect("sized")


@check("tasks exec", "containerd")
def beside(e):
    name = e.background([])
    same("The output", e.inside(name, "echo hello; pwd"), "hello\n/")
    text = e.ok("tasks", "exec", "--exec-id", "other", "--user", "1000:1001", "--cwd", "/tmp", name, "sh", "-c", "id -u; id -g; pwd")
    same("The output with options", text, "1000\n1001\n/tmp")
    same("The exit code", e.do("tasks", "exec", "--exec-id", "code", name, "sh", "-c", "exit 9").code, 9)
    done = e.do("tasks", "exec", "--exec-id", "none", name, "no-such-program")
    true(done.code != 0, "exec of a missing program succeeded.")
    contains("The message", done.err, "no-such-program")
    e.ok("tasks", "exec", "-d", "--exec-id", "long", name, "sleep", "4324")
    eventually("The detached process", lambda: alive("4324"))
    e.ok("tasks", "kill", "--exec-id", "long", "-s", "KILL", name)
    eventually("Its end", lambda: not alive("4324"))


@check("tasks ls, ps, kill and rm", "containerd")
def tasks(e):
    name = e.background([], "sh", "-c", "trap 'exit 3' TERM; sleep 4325 & while :; do sleep 0.1; done")
    same("The status", e.status(name), "RUNNING")
    true(e.ok("tasks", "ps", name).count("\n") >= 2, "tasks ps does not list two processes.")
    e.ok("tasks", "kill", name)
    eventually("The end", lambda: e.status(name) == "STOPPED")
    eventually("The end of the other process", lambda: not alive("4325"))
    e.ok("tasks", "rm", name)
    e.ok("containers", "rm", name)
    name = e.background([])
    e.ok("tasks", "kill", "--all", "-s", "KILL", name)
    eventually("The end after SIGKILL", lambda: e.status(name) == "STOPPED")
    name = e.background([])
    e.ok("tasks", "rm", "-f", name)
    same("The status after rm -f", e.status(name), "")


@check("tasks pause and resume", "containerd")
def pause(e):
    name = e.background([])
    e.ok("tasks", "pause", name)
    same("The status", e.status(name), "PAUSED")
    e.refused("tasks", "exec", "--exec-id", "no", name, "true")
    e.ok("tasks", "resume", name)
    same("The status after", e.status(name), "RUNNING")
    same("What exec printed", e.inside(name, "echo on"), "on")
    e.ok("tasks", "pause", name)
    e.ok("tasks", "rm", "-f", name)


@check("limits and metrics", "containerd")
def limits(e):
    name = e.background(["--memory-limit", str(64 * MIB), "--cpu-quota", "25000", "--cpu-period", "50000", "--cpu-shares", "512"])
    if unified():
        same("The limit", cgroup(name, "memory.max"), str(64 * MIB))
        same("The quota", cgroup(name, "cpu.max"), "25000 50000")
    else:
        same("The limit", cgroup(name, "memory/memory.limit_in_bytes"), str(64 * MIB))
        same("The quota", cgroup(name, "cpu/cpu.cfs_quota_us"), "25000")
        same("The period", cgroup(name, "cpu/cpu.cfs_period_us"), "50000")
        same("The shares", cgroup(name, "cpu/cpu.shares"), "512")
    contains("The metrics", e.ok("tasks", "metrics", name), "memory", "cpu", str(64 * MIB) if not unified() else "memory.usage")
    name = e.background(["--cpus", "0.5"])
    quota = cgroup(name, "cpu.max" if unified() else "cpu/cpu.cfs_quota_us")
    same("The quota of half a CPU", quota.split()[0], "50000")


@check("events, and the OOM killer among them", "containerd")
def events(e):
    log = e.scratch / "events"
    with open(log, "w") as file:
        listener = subprocess.Popen([*e.command(), "events"], stdout=file, env=e.environment)
    try:
        def heard():
            e.ok("run", "--rm", "--null-io", "--runc-binary", e.runtime, IMAGE, e.new_name(), "true")
            return "/tasks/exit" in log.read_text()

        eventually("The first event", heard)
        name = e.background(["--memory-limit", str(16 * MIB)], "sh", "-c", "x=a; while :; do x=$x$x; done")
        eventually("The end", lambda: e.status(name) == "STOPPED")
        eventually("The event of its end", lambda: f'"container_id":"{name}"' in log.read_text())
        eventually("The OOM event", lambda: any(
            "/tasks/oom" in line and name in line for line in log.read_text().splitlines()))
        contains("The events", log.read_text(), "/tasks/create", "/tasks/start", "/tasks/delete")
    finally:
        listener.kill()
        listener.wait()


@check("capabilities, no_new_privs and --privileged", "containerd")
def capability_sets(e):
    text = e.box(["--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_CHOWN"], "cat", "/proc/self/status")
    true(capabilities(text) & NET_ADMIN, "CAP_NET_ADMIN was not added.")
    true(not capabilities(text) & 1, "CAP_CHOWN was not dropped.")
    contains("The status", text, "NoNewPrivs:\t1")
    text = e.box(["--allow-new-privs"], "cat", "/proc/self/status")
    contains("The status with --allow-new-privs", text, "NoNewPrivs:\t0")
    text = e.box(["--privileged"], "cat", "/proc/self/status")
    true(capabilities(text) & SYS_ADMIN, "A privileged container has no CAP_SYS_ADMIN.")


@check("seccomp", "containerd")
def seccomp(e):
    def mode(*options):
        return e.box(list(options), "grep", "Seccomp:", "/proc/self/status").split()[1]

    same("The mode without a filter", mode(), "0")
    same("The mode with the default filter", mode("--seccomp"), "2")
    profile = e.scratch / "seccomp.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88}]}))
    text = e.box(["--seccomp", "--seccomp-profile", profile], "sh", "-c", "mkdir /x 2>&1 || true")
    contains("What mkdir says", text, "Socket operation on non-socket")


@check("environment, directory, mounts, a read-only root, a device", "containerd")
def files(e):
    outside = e.scratch / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "file").write_text("from outside")
    text = e.box(["--env", "COLOUR=blue", "--cwd", "/tmp"], "sh", "-c", "echo $COLOUR; pwd")
    same("The output", text, "blue\n/tmp")
    text = e.box(["--read-only", "--mount", f"type=bind,src={outside},dst=/v,options=rbind:ro",
                  "--mount", "type=tmpfs,src=tmpfs,dst=/t,options=size=1m:mode=1711"],
                 "sh", "-c", "cat /v/file; echo; touch /v/x 2>&1; touch /x 2>&1; touch /t/x && stat -c %a /t")
    contains("The files", text, "from outside", "/v/x: Read-only", "touch: /x: Read-only", "1711")
    same("A device", e.box(["--device", "/dev/loop-control"], "sh", "-c", "(exec 3</dev/loop-control) && echo opened"), "opened")


@check("a user namespace", "containerd")
def user_namespace(e):
    options = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"]
    text = e.box(options, "sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /new && stat -c %u:%g /new /bin")
    same("What it sees", text.split(), ["0", "0", "100000", "65536", "0", "200000", "65536", "0:0", "0:0"])
    name = e.background(options)
    same("What exec is", e.inside(name, "id -u"), "0")


@check("namespaces that are joined", "containerd")
def namespaces(e):
    name = e.background([])
    pid = e.ok("tasks", "ls").split(name)[1].split()[0]
    kinds = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    options = [word for kind, file in kinds.items() for word in ("--with-ns", f"{kind}:/proc/{pid}/ns/{file}")]
    text = e.box(options, "sh", "-c", "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; ps | grep -c 'sleep 1000'")
    wanted = [os.readlink(f"/proc/{pid}/ns/{file}") for file in ("net", "ipc", "uts", "pid")]
    same("The namespaces", text.split()[:4], wanted)
    same("The host's network", e.box(["--net-host"], "readlink", "/proc/self/ns/net"), os.readlink("/proc/self/ns/net"))


@check("a root directory of its own, --no-pivot, --pid-file, no cgroup", "containerd")
def roots(e):
    root = e.scratch / "rootfs"
    (root / "bin").mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "/bin/busybox", root / "bin/sh"], check=True)
    text = e.ok("run", "--rm", "--runc-binary", e.runtime, "--rootfs", root, e.new_name(), "/bin/sh", "-c",
                "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo from a directory")
    same("The output", text, "from a directory")
    same("The output without pivot_root", e.box(["--no-pivot"], "echo", "moved"), "moved")
    file = e.scratch / "pid"
    name = e.background(["--pid-file", file])
    same("The pid file", file.read_text(), e.ok("tasks", "ls").split(name)[1].split()[0])
    same("The output without a cgroup", e.box(["--cgroup", ""], "echo", "free"), "free")


@check("ten tasks at once", "containerd")
def many(e):
    commands = [[*e.command(), "run", "--rm", "--runc-binary", e.runtime, IMAGE, e.new_name(), *LINGER, "echo", str(i)]
                for i in range(10)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=e.environment)
               for command in commands]
    for i, process in enumerate(running):
        same("The output of one of ten", process.communicate()[0], f"{i}\n")


def cgroup(name, file):
    """A file of a task's cgroup."""
    path = Path("/sys/fs/cgroup")
    if unified():
        return (path / "default" / name / file).read_text().strip()
    controller, _, file = file.partition("/")
    return (path / controller / "default" / name / file).read_text().strip()
