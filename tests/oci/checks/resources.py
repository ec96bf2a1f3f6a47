"""Limits: what was asked for is what the container's cgroup says, and what the kernel enforces."""

from engine import IMAGE, Skip, check, contains, eventually, limit, same, true, unified

MIB = 1 << 20
MEMORY = limit("memory/memory.limit_in_bytes", "memory.max")
QUOTA = limit("cpu/cpu.cfs_quota_us", "cpu.max")
PIDS = limit("pids/pids.max", "pids.max")


@check("--memory, --memory-reservation")
def memory(e):
    same("The limit", e.script(["--memory", "64m"], MEMORY), str(64 * MIB))
    text = e.script(["--memory", "64m", "--memory-reservation", "32m"],
                    limit("memory/memory.soft_limit_in_bytes", "memory.low"))
    same("The reservation", text, str(32 * MIB))


@check("--cpus, --cpu-shares, --cpuset-cpus")
def cpu(e):
    same("The quota", e.script(["--cpus", "0.5"], QUOTA), "50000 100000" if unified() else "50000")
    text = e.script(["--cpu-shares", "512"], limit("cpu/cpu.shares", "cpu.weight"))
    if unified():
        true(0 < int(text) < 100, f"The weight of 512 shares is {text}.")
    else:
        same("The shares", text, "512")
    same("The CPUs", e.script(["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status").split()[1], "0")


@check("--pids-limit")
def pids(e):
    same("The limit", e.script(["--pids-limit", "20"], PIDS), "20")
    done = e.do("run", "--rm", "--pids-limit", "20", IMAGE, "sh", "-c", "for i in $(seq 40); do sleep 5 & done; echo all")
    contains("What the shell says", done.err + done.out, "can't fork")


@check("the OOM killer is reported")
def out_of_memory(e):
    small = ["--memory", "16m", "--memory-swap", "16m"]
    name = e.background(small, "sh", "-c", "x=a; while :; do x=$x$x; done")
    same("The exit code", e.ok("wait", name), "137")
    (e.scratch / "oom").unlink(missing_ok=True)
    # Docker 20.10 loses the event, now and then, if the container ends with it: with runc too.
    name = e.background(small, "sh", "-c", "sh -c 'x=a; while :; do x=$x$x; done'; sleep 1; exit 5")
    same("The exit code of one that lives on", e.ok("wait", name), "5")
    # Old conmons leave their mark where podman was started, which is not where podman looks for it.
    mark = e.scratch / "oom"
    if not mark.exists():
        same("OOMKilled", e.inspect(name, ".State.OOMKilled"), "true")
    mark.unlink(missing_ok=True)
    name = e.background(["--memory", "16m"], "true")
    e.ok("wait", name)
    same("OOMKilled of a good one", e.inspect(name, ".State.OOMKilled"), "false")


@check("a small memory limit starts")
def small(e):
    # docker and podman ask for at least 4 or 6 MiB.
    same("The output", e.box(["--memory", "6m"], "echo", "started"), "started")


@check("update of a running container")
def update(e):
    name = e.background(["--memory", "64m", "--memory-swap", "128m"])
    e.ok("update", "--memory", "48m", "--cpus", "0.25", *(["--pids-limit", "30"] if e.name == "docker" else []), name)
    same("The memory limit", e.inside(name, MEMORY), str(48 * MIB))
    same("The quota", e.inside(name, QUOTA).split()[0], "25000")
    if e.name == "docker":
        same("The limit of processes", e.inside(name, PIDS), "30")


@check("stats")
def stats(e):
    name = e.background(["--memory", "64m"], "sh", "-c", "sleep 1000 & sleep 1000 & while :; do :; done")
    pids = "{{.PIDs}}"
    text = eventually("Three processes in stats",
                      lambda: (text := e.ok("stats", "--no-stream", "--format", f"{{{{.MemUsage}}}}|{pids}|{{{{.CPUPerc}}}}", name))
                      .split("|")[1] == "3" and text)
    usage, _, cpu = text.split("|")
    used, _, limit = usage.partition(" / ")
    true(limit in ("64MiB", "67.11MB"), f"The limit in stats is {limit!r}.")
    true(float(used.rstrip("kKMGiB")) > 0, f"The usage in stats is {used!r}.")
    true(float(cpu.rstrip("%")) > 0, f"The CPU usage in stats is {cpu!r}.")


@check("--cgroup-parent")
def parent(e):
    text = e.script(["--cgroup-parent", "/tested-parent"], "cat /proc/self/cgroup")
    contains("The cgroup", text, "/tested-parent/")


@check("--device-read-bps")
def throttle(e):
    import os
    device = next((path for path in ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0") if os.path.exists(path)), None)
    if device is None:
        raise Skip("there is no block device")
    text = e.script(["--device-read-bps", f"{device}:1048576"], limit("blkio/blkio.throttle.read_bps_device", "io.max"))
    contains("The limit", text, "1048576")


@check("the private cgroup namespace")
def cgroup_namespace(e):
    if e.name == "docker" and not unified():
        options = ["--cgroupns", "private"]
    else:
        options = ["--cgroupns=private"]
    lines = e.script(options, "cat /proc/self/cgroup").splitlines()
    true(all(line.split(":", 2)[2] == "/" for line in lines), f"The cgroups are {lines}.")
    same("The limit", e.script([*options, "--memory", "64m"], MEMORY), str(64 * MIB))
