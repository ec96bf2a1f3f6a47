"""A container's life: run, logs, stop, kill, pause, restart, remove, checkpoint."""

import json
import shutil
import subprocess
import time

from engine import EVERYONE, IMAGE, Failed, Skip, check, contains, eventually, same, true


@check("run prints what the program prints", *EVERYONE)
def run(e):
    done = e.do("run", "--rm", IMAGE, "sh", "-c", "echo to stdout; echo to stderr >&2")
    same("The exit code", done.code, 0)
    same("Standard output", done.out, "to stdout\n")
    same("Standard error", done.err, "to stderr\n")


@check("run passes standard input on", *EVERYONE)
def standard_input(e):
    same("What cat printed", e.box(["-i"], "cat", stdin="one\ntwo\n"), "one\ntwo")
    text = "0123456789abcdef" * 20000
    same("The size of a long input", e.box(["-i"], "wc", "-c", stdin=text), str(len(text)))


@check("exit codes", *EVERYONE)
def exit_codes(e):
    for program, code in [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["sh", "-c", "exit 255"], 255),
                          (["no-such-program"], 127), (["/etc"], 126), (["/etc/passwd"], 126)]:
        done = e.do("run", "--rm", IMAGE, *program)
        same(f"The exit code of {program}", done.code, code)
    name = e.background([], "sh", "-c", "kill -9 $$; sleep 1000")
    e.ok("kill", name)
    same("The exit code after SIGKILL", e.ok("wait", name), "137")


@check("a missing program is named", *EVERYONE)
def missing_program(e):
    contains("The message", e.refused("run", "--rm", IMAGE, "no-such-program"), "no-such-program")
    name = e.background([])
    done = e.do("exec", name, "no-such-program")
    true(done.code in (126, 127), f"exec of a missing program ended with {done.code}.")
    contains("The message", done.out + done.err, "no-such-program")


@check("logs", *EVERYONE)
def logs(e):
    name = e.background([], "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo error >&2")
    e.ok("wait", name)
    done = e.do("logs", name)
    same("Standard output", done.out, "line 1\nline 2\nline 3\n")
    same("Standard error", done.err, "error\n")
    name = e.background([], "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.2; done")
    same("What logs -f followed", e.ok("logs", "-f", name), "line 1\nline 2\nline 3")


@check("create, start and start again", *EVERYONE)
def create_start(e):
    name = e.new_name()
    e.ok("create", "--name", name, IMAGE, "sh", "-c", "echo ran")
    same("The status before", e.inspect(name, ".State.Status"), "created")
    same("What start -a printed", e.ok("start", "-a", name), "ran")
    same("What it printed again", e.ok("start", "-a", name), "ran")
    same("The status after", e.inspect(name, ".State.Status"), "exited")


@check("stop lets the program end, and kills it after the time", *EVERYONE)
def stop(e):
    patient = e.background([], "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    ready(e, patient)
    e.ok("stop", "-t", "30", patient)
    same("The exit code of one that ends", e.inspect(patient, ".State.ExitCode"), "3")
    deaf = e.background([], "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    ready(e, deaf)
    e.ok("stop", "-t", "1", deaf)
    same("The exit code of one that does not", e.inspect(deaf, ".State.ExitCode"), "137")


@check("kill sends the signal that is asked for", *EVERYONE)
def kill(e):
    name = e.background([], "sh", "-c", "trap 'echo got it' USR1; echo ready; while :; do sleep 0.1; done")
    ready(e, name)
    e.ok("kill", "-s", "USR1", name)
    eventually("The handler's line in the log", lambda: "got it" in e.ok("logs", name))
    same("The status", e.inspect(name, ".State.Status"), "running")
    e.ok("kill", name)
    eventually("The end", lambda: e.inspect(name, ".State.Status") == "exited")
    e.refused("kill", name)


@check("pause and unpause")
def pause(e):
    name = e.background(["-v", f"{e.scratch}:/out"], "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /out/count; done")
    count = e.scratch / "count"
    eventually("A count", lambda: count.exists() and count.read_text().strip())
    e.ok("pause", name)
    same("The status", e.inspect(name, ".State.Status"), "paused")
    before = count.read_text()
    time.sleep(0.3)
    same("The count of a paused container", count.read_text(), before)
    e.refused("exec", name, "true")
    e.ok("unpause", name)
    same("The status after", e.inspect(name, ".State.Status"), "running")
    eventually("Counting on", lambda: count.read_text().strip() not in ("", before.strip()))
    e.ok("exec", name, "true")


@check("rm -f of a running, a paused and a stopped container")
def remove(e):
    for prepare in (None, "pause", "stop"):
        name = e.background([], "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
        if prepare:
            e.ok(prepare, name)
        e.ok("rm", "-f", name)
        e.refused("inspect", "--type", "container", name)


@check("--rm leaves nothing", *EVERYONE)
def auto_remove(e):
    name = e.new_name()
    e.ok("run", "--rm", "--name", name, IMAGE, "true")
    e.refused("inspect", "--type", "container", name)
    name = e.new_name()
    e.ok("run", "-d", "--rm", "--name", name, IMAGE, "sleep", "1000")
    e.ok("kill", name)
    eventually("The removal", lambda: e.do("inspect", "--type", "container", name).code != 0)


@check("restart", *EVERYONE)
def restart(e):
    name = e.background([], "sh", "-c", "cat /proc/sys/kernel/random/uuid; sleep 1000")
    first = eventually("The first line", lambda: e.ok("logs", name))
    e.ok("restart", "-t", "0", name)
    lines = eventually("A second line", lambda: (text := e.ok("logs", name)) != first and text.split())
    same("The number of starts", len(lines), 2)
    same("The status", e.inspect(name, ".State.Status"), "running")


@check("restart policies", *EVERYONE)
def restart_policies(e):
    name = e.background(["--restart", "on-failure:2"], "sh", "-c", "echo again; exit 4")
    eventually("The last try", lambda: e.inspect(name, ".State.Status") == "exited"
               and e.inspect(name, ".RestartCount") == "2")
    same("What was logged", e.ok("logs", name).split(), ["again"] * 3)
    same("The exit code", e.inspect(name, ".State.ExitCode"), "4")
    # The third run stays: one that is about to be restarted can't always be removed.
    script = "echo again; echo x >> /runs; if [ $(wc -l < /runs) -ge 3 ]; then sleep 1000; fi"
    name = e.background(["--restart", "always"], "sh", "-c", script)
    eventually("Three runs", lambda: e.ok("logs", name).count("again") >= 3)


@check("attach", *EVERYONE)
def attach(e):
    name = e.new_name()
    e.ok("create", "-i", "--name", name, IMAGE, "sh", "-c", "read line; echo got $line; exit 5")
    done = e.do("start", "-ai", name, stdin="hello\n")
    same("The output", done.out, "got hello\n")
    same("The exit code", done.code, 5)


@check("twenty containers at once", *EVERYONE)
def many(e):
    command = [*e.command(), "run", "--rm", IMAGE, "sh", "-c"]
    running = [subprocess.Popen([*command, f"echo {i}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=e.environment) for i in range(20)]
    for i, process in enumerate(running):
        same("The output of one of twenty", process.communicate()[0], f"{i}\n")


@check("events")
def events(e):
    since = str(int(time.time()) - 1)
    name = e.background([], "sh", "-c", "exit 9")
    e.ok("wait", name)
    until = str(int(time.time()) + 2)
    text = e.ok("events", "--since", since, "--until", until, "--filter", f"container={name}")
    contains("The list of events", text, "start", "died" if e.is_podman else "die")


@check("a health check", *EVERYONE)
def health(e):
    command = ["--health-cmd", "test -e /healthy || exit 1", "--health-retries", "1"]
    if e.is_podman:
        # Without systemd nobody runs it but us.
        name = e.background([*command, "--health-interval", "disable"])
        e.refused("healthcheck", "run", name)
        same("The health before", e.inspect(name, ".State.Health.Status"), "unhealthy")
        e.ok("exec", name, "touch", "/healthy")
        e.ok("healthcheck", "run", name)
        same("The health after", e.inspect(name, ".State.Health.Status"), "healthy")
        return
    name = e.background([*command, "--health-interval", "200ms"])
    eventually("Bad health", lambda: e.inspect(name, ".State.Health.Status") == "unhealthy")
    e.ok("exec", name, "touch", "/healthy")
    eventually("Good health", lambda: e.inspect(name, ".State.Health.Status") == "healthy")


@check("checkpoint and restore")
def checkpoint(e):
    if not shutil.which("criu"):
        raise Skip("criu is not installed")
    works = subprocess.run(["criu", "check"], capture_output=True, text=True)
    if works.returncode != 0:
        raise Skip(f"criu can't work on this kernel: {(works.stderr or works.stdout).strip().splitlines()[-1]}")
    options = ["--network", "none", "--security-opt", "seccomp=unconfined"]
    name = e.background(options, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    eventually("Some lines", lambda: e.ok("logs", name).count("\n") > 3)
    if e.is_podman:
        e.ok("container", "checkpoint", name)
        e.ok("container", "restore", name)
    else:
        e.ok("checkpoint", "create", name, "here")
        e.ok("start", "--checkpoint", "here", name)
    count = lambda: [int(line) for line in e.ok("logs", name).split()]
    before = len(count())
    eventually("More lines", lambda: len(count()) > before + 3)
    same("The lines", count(), list(range(1, len(count()) + 1)))


def ready(e, name):
    eventually("The line `ready` in the log", lambda: "ready" in e.ok("logs", name))
