"""The process in the container: its identity, its terminal, and others beside it."""

import json
import os

import sandbox
from engine import EVERYONE, IMAGE, Failed, Skip, check, contains, eventually, same, true
from checks.life import ready

# Since 5.4 capabilities go up to 40, CAP_CHECKPOINT_RESTORE.
CHOWN, NET_ADMIN, SYS_ADMIN = 1 << 0, 1 << 12, 1 << 21


@check("user, groups, directory, environment, host name", *EVERYONE)
def identity(e):
    text = e.script(["-u", "1000:1001", "--group-add", "1234", "-w", "/tmp", "-e", "COLOUR=blue", "--hostname", "boxed"],
                    "id; pwd; echo $COLOUR; hostname")
    contains("The output", text, "uid=1000", "gid=1001", "1234", "/tmp\nblue\nboxed")
    same("The user of a name", e.box(["-u", "nobody"], "id", "-u"), "65534")


@check("a terminal: -it, its size, resizing, its signals", *EVERYONE)
def terminal(e):
    t = e.terminal("run", "--rm", "-it", IMAGE, "sh", size=(33, 101))
    t.send("tty\n")
    t.expect("/dev/pts/0")
    # Docker sets it after the start.
    t.send("until stty size | grep '33 101'; do sleep 0.1; done; echo siz''ed\n")
    t.expect("sized")
    t.resize(44, 120)
    t.send("until stty size | grep '44 120'; do sleep 0.1; done; echo resize''d\n")
    t.expect("resized")
    # Said by the program itself: until the shell has given it the terminal, a Ctrl-C is the shell's, which forgets it.
    t.send("sh -c 'echo sleep\"\"ing; exec sleep 1000'\n")
    t.expect("sleeping")
    t.send("\x03")
    t.send("echo ali''ve\n")
    t.expect("alive")
    t.send("exit 6\n")
    same("The exit code", t.wait(), 6)
    contains("A container without a terminal", e.script([], "tty || true"), "not a tty")


@check("a terminal of exec", *EVERYONE)
def exec_terminal(e):
    name = e.background([])
    t = e.terminal("exec", "-it", name, "sh", size=(22, 77))
    t.send("tty; until stty size | grep '22 77'; do sleep 0.1; done; echo siz''ed\n")
    t.expect("/dev/pts/")
    t.expect("sized")
    t.send("exit 8\n")
    same("The exit code", t.wait(), 8)


@check("a terminal's container in the background, and attach to it", *EVERYONE)
def attach_terminal(e):
    name = e.new_name()
    e.ok("run", "-dit", "--name", name, IMAGE, "sh")
    t = e.terminal("attach", name)
    t.send("echo he''re; tty\n")
    t.expect("here")
    t.expect("/dev/pts/0")
    t.detach()
    same("The status after detaching", e.inspect(name, ".State.Status"), "running")


@check("exec", *EVERYONE)
def run_beside(e):
    name = e.background(["-e", "COLOUR=blue"])
    same("The output", e.inside(name, "echo $COLOUR; hostname | wc -c; pwd"), "blue\n13\n/")
    text = e.ok("exec", "-u", "1000:1001", "-w", "/tmp", "-e", "SHAPE=round", name, "sh", "-c", "id -u; id -g; pwd; echo $SHAPE")
    same("The output with options", text, "1000\n1001\n/tmp\nround")
    same("The exit code", e.do("exec", name, "sh", "-c", "exit 9").code, 9)
    same("What it reads", e.ok("exec", "-i", name, "cat", stdin="some input"), "some input")
    e.ok("exec", "-d", name, "sh", "-c", "echo done > /done")
    eventually("The file of a detached process", lambda: e.do("exec", name, "test", "-s", "/done").code == 0)
    e.ok("stop", "-t", "0", name)
    e.refused("exec", name, "true")


@check("exec --privileged")
def exec_privileged(e):
    name = e.background(["--cap-drop", "ALL"])
    same("The capabilities of the container", capabilities(e.ok("exec", name, "cat", "/proc/1/status")), 0)
    same("The capabilities of exec", capabilities(e.ok("exec", name, "cat", "/proc/self/status")), 0)
    held = capabilities(e.ok("exec", "--privileged", name, "cat", "/proc/self/status"))
    true(held & SYS_ADMIN, f"A privileged process has only the capabilities {held:#x}.")


@check("many exec at once", *EVERYONE)
def many_beside(e):
    import subprocess
    name = e.background([])
    running = [subprocess.Popen([*e.command(), "exec", name, "echo", str(i)], stdout=subprocess.PIPE, text=True,
                                env=e.environment) for i in range(10)]
    for i, process in enumerate(running):
        same("The output of one of ten", process.communicate()[0], f"{i}\n")


@check("top")
def top(e):
    name = e.background([], "sh", "-c", "sleep 4321 & sleep 1234; true")
    text = eventually("Three processes", lambda: (text := e.ok("top", name)).count("\n") == 3 and text)
    contains("The list", text, "sleep 4321", "sleep 1234")


@check("--init reaps and passes signals on", *EVERYONE)
def init(e):
    script = "trap 'echo ended; exit 0' TERM; (sleep 0.05 & echo orphan $!); echo ready; while :; do sleep 0.1; done"
    name = e.background(["--init"], "sh", "-c", script)
    ready(e, name)
    text = e.inside(name, "cat /proc/1/comm")
    true("init" in text or "catatonit" in text or "tini" in text, f"Process 1 is {text!r}.")
    orphan = e.ok("logs", name).split()[1]
    # One that ended and was not reaped would be there still.
    eventually("The reaping", lambda: e.inside(name, f"! [ -d /proc/{orphan} ] || echo there") == "")
    e.ok("stop", "-t", "30", name)
    contains("The log", e.ok("logs", name), "ended")


@check("capabilities: --cap-drop, --cap-add, an ordinary user has none", *EVERYONE)
def capability_sets(e):
    def held(*options):
        return capabilities(e.script(list(options), "cat /proc/self/status"))

    same("After --cap-drop ALL", held("--cap-drop", "ALL"), 0)
    same("With one added", held("--cap-drop", "ALL", "--cap-add", "NET_ADMIN"), NET_ADMIN)
    true(not held("--cap-drop", "CHOWN") & CHOWN, "CAP_CHOWN was dropped and is there.")
    true(held() & CHOWN, "CAP_CHOWN is not among the default capabilities.")
    same("An ordinary user's", held("-u", "1000"), 0)
    done = e.do("run", "--rm", "--cap-drop", "CHOWN", IMAGE, "chown", "1", "/etc")
    true(done.code != 0, "chown works without CAP_CHOWN.")


@check("--security-opt no-new-privileges", *EVERYONE)
def no_new_privileges(e):
    contains("The status", e.script(["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status"), "1")
    contains("The status without it", e.script([], "grep NoNewPrivs /proc/self/status"), "0")


@check("seccomp: the default filter, a profile, none", *EVERYONE)
def seccomp(e):
    def mode(*options):
        return e.script(list(options), "grep Seccomp: /proc/self/status").split()[1]

    same("The default mode", mode(), "2")
    same("The mode when unconfined", mode("--security-opt", "seccomp=unconfined"), "0")
    profile = e.scratch / "seccomp.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88},
                     {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
                      "args": [{"index": 1 if machine() == "x86_64" else 2, "value": 0o700, "op": "SCMP_CMP_EQ"}]}],
    }))
    options = ["--security-opt", f"seccomp={profile}"]
    same("The mode with a profile", mode(*options), "2")
    # 88 is ENOTSOCK.
    contains("What mkdir says", e.script(options, "mkdir /x 2>&1 || true"), "Socket operation on non-socket")
    contains("What chmod 700 says", e.script(options, "chmod 700 /tmp 2>&1; chmod 711 /tmp && echo other"),
             "Operation not permitted", "other")
    name = e.background(options)
    contains("What mkdir says in exec", e.inside(name, "mkdir /x 2>&1 || true"), "Socket operation on non-socket")


@check("--ulimit")
def ulimit(e):
    # Podman adds its default of this one, which may be above what this machine allows.
    own = ["--ulimit", "nproc=1000:1000"]
    same("The limits", e.script(["--ulimit", "nofile=100:200", "--ulimit", "core=0:0", *own], "ulimit -Sn; ulimit -Hn; ulimit -c"),
         "100\n200\n0")
    name = e.background(["--ulimit", "nofile=123:234", *own])
    same("The limits in exec", e.inside(name, "ulimit -Sn; ulimit -Hn"), "123\n234")


@check("--oom-score-adj")
def oom_score(e):
    same("The adjustment", e.box(["--oom-score-adj", "500"], "cat", "/proc/self/oom_score_adj"), "500")


@check("--privileged")
def privileged(e):
    text = e.script(["--privileged"], "cat /proc/self/status; ls /dev | wc -l; mount -t tmpfs x /mnt 2>&1 || mkdir -p /mnt "
                    "&& mount -t tmpfs x /mnt && echo mounted; touch /proc/sys/kernel/hostname && echo writable")
    contains("The output", text, "mounted", "writable", "Seccomp:\t0")
    true(capabilities(text) & SYS_ADMIN, "CAP_SYS_ADMIN is missing.")
    devices = e.script(["--privileged"], "ls /dev; (exec 3</dev/loop-control) && echo opened")
    contains("The devices", devices, "kmsg", "loop-control", "opened")
    same("Masked files", e.script(["--privileged"], "mount | grep -c 'on /proc/' || true"), "0")


@check("a user namespace")
def user_namespace(e):
    if e.name == "docker":
        raise Skip("it is the daemon's option: see the check of its own")
    options = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"]
    text = e.script(options, "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /new && stat -c %u:%g /new /bin")
    same("What it sees", text.split(), ["0", "0", "100000", "65536", "0", "200000", "65536", "0:0", "0:0"])
    name = e.background([*options, "--memory", "64m"])
    pid = e.inspect(name, ".State.Pid")
    with open(f"/proc/{pid}/status") as status:
        contains("The host's view", status.read(), "Uid:\t100000\t100000", "Gid:\t200000\t200000")
    same("What exec is", e.inside(name, "id -u; id -g; cat /proc/self/uid_map | wc -l"), "0\n0\n1")
    same("As another user", e.ok("exec", "-u", "33:33", name, "id", "-u"), "33")
    text = e.script([*options, "-v", f"{e.scratch}:/host", "--read-only", "--tmpfs", "/x:size=1m"], "touch /x/y; ls -d /host /x/y")
    same("With volumes", text, "/host\n/x/y")
    e.script(["--uidmap", "0:1000:1", "--gidmap", "0:1000:1"], "true")


@check("the user's ids, and those of --userns=keep-id", "rootless")
def own_ids(e):
    ids = e.script([], "id -u; cat /proc/self/uid_map; touch /new && stat -c %u /new").split()
    same("What it sees", ids[:4], ["0", "0", "1500", "1"])
    same("The owner of its file", ids[-1], "0")
    same("The kept id", e.script(["--userns=keep-id"], "id -u; id -g"), "1500\n1500")
    same("Another user", e.box(["-u", "1000:1000"], "id", "-u"), "1000")
    outside = e.home / "volume"
    outside.mkdir()
    os.chown(outside, 1500, 1500)
    e.script(["-v", f"{outside}:/v"], "echo mine > /v/file")
    same("The owner of a volume's file", (outside / "file").stat().st_uid, 1500)


@check("the daemon's user namespace remapping", "docker")
def remapping(e):
    (e.scratch / "subid").write_text("nobody:100000:65536\n")
    for path in ("/etc/subuid", "/etc/subgid"):
        sandbox.bind(e.scratch / "subid", path)
    e.stop()
    try:
        e.start("--userns-remap", "nobody:nogroup")
        text = e.script([], "id -u; cat /proc/self/uid_map; touch /new && stat -c %u:%g /new")
        same("What it sees", text.split(), ["0", "0", "100000", "65536", "0:0"])
        name = e.background(["--memory", "64m", "-p", "18080:80"])
        pid = e.inspect(name, ".State.Pid")
        with open(f"/proc/{pid}/status") as status:
            contains("The host's view", status.read(), "Uid:\t100000\t100000")
        same("What exec is", e.inside(name, "id -u"), "0")
        e.clean()
    finally:
        e.stop()
        for path in ("/etc/subuid", "/etc/subgid"):
            sandbox.unbind(path)
        e.launch()


def machine():
    import platform
    return platform.machine()


def capabilities(status):
    """CapEff of a /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)
