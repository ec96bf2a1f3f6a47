"""What the engines have in common: how a command is run, and what a check may ask for."""

import fcntl
import itertools
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import time
from dataclasses import dataclass
from pathlib import Path

IMAGE = "berth.local/busybox:latest"
# Seconds, for one command and for one condition: far more than anything here takes.
PATIENCE = 60


class Failed(Exception):
    """A check's sentence about what is wrong."""


class Skip(Exception):
    """Why this engine or this machine can't do what a check asks for."""


@dataclass
class Done:
    """A command that ended."""

    command: str
    code: int
    out: str
    err: str


class Engine:
    """A container engine that runs its containers with the runtime under test."""

    name = ""
    # Its commands are podman's, not docker's.
    is_podman = False
    # Programs without which the engine can't be tested here.
    programs = ()

    def __init__(self, runtime, scratch, images):
        self.runtime = str(runtime)
        self.scratch = Path(scratch)
        self.images = Path(images)
        # Engines keep sockets and copies there while they work.
        temporary = self.scratch / "tmp"
        temporary.mkdir()
        temporary.chmod(0o1777)
        self.environment = dict(os.environ, HOME=str(self.scratch), TMPDIR=str(temporary))
        self._numbers = itertools.count(1)

    @classmethod
    def missing(cls):
        """The programs that are not installed."""
        return [name for name in cls.programs if shutil.which(name) is None]

    def command(self):
        """The command line's beginning."""
        raise NotImplementedError

    def version(self):
        raise NotImplementedError

    def start(self):
        """Starts the engine, if it is a daemon, and loads the image."""

    def stop(self):
        """Stops the daemon."""

    def clean(self):
        """Removes what a check left, and returns the names of the containers that it should have removed."""
        raise NotImplementedError

    def state_roots(self):
        """Where the runtime keeps its states under this engine."""
        return []

    # --- commands ---

    def do(self, *arguments, stdin=None, environment=None):
        """Runs a command to its end, whatever that is."""
        command = [*self.command(), *map(str, arguments)]
        shown = " ".join([self.name, *map(str, arguments)])
        try:
            run = subprocess.run(command, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                                 capture_output=True, text=True, errors="replace", timeout=PATIENCE,
                                 env=environment or self.environment, cwd=self.scratch)
        except subprocess.TimeoutExpired:
            raise Failed(f"`{shown}` did not end within {PATIENCE} s.") from None
        return Done(shown, run.returncode, run.stdout, run.stderr)

    def ok(self, *arguments, **options):
        """The output of a command that must succeed."""
        done = self.do(*arguments, **options)
        if done.code != 0:
            raise Failed(f"`{done.command}` ended with {done.code}: {(done.err or done.out).strip()}")
        return done.out.strip()

    def refused(self, *arguments, **options):
        """What a command that must fail says."""
        done = self.do(*arguments, **options)
        if done.code == 0:
            raise Failed(f"`{done.command}` succeeded: {done.out.strip()}")
        return done.err.strip() or done.out.strip()

    def new_name(self):
        return f"box{next(self._numbers)}"

    # --- containers, as docker and podman start them ---

    def box(self, options, *program, **more):
        """The output of a container that runs a program to its end."""
        return self.ok("run", "--rm", *options, IMAGE, *program, **more)

    def script(self, options, text, **more):
        """The output of a shell script in a container."""
        return self.box(options, "sh", "-c", text, **more)

    def background(self, options, *program):
        """Starts a container that stays, and returns its name."""
        name = self.new_name()
        self.ok("run", "-d", "--name", name, *options, IMAGE, *(program or ("sleep", "1000")))
        return name

    def inside(self, name, text):
        """The output of a shell script in a running container."""
        return self.ok("exec", name, "sh", "-c", text)

    def inspect(self, name, template):
        return self.ok("inspect", "--type", "container", "--format", "{{" + template + "}}", name)

    def terminal(self, *arguments, size=(24, 80)):
        return Terminal([*self.command(), *map(str, arguments)], self.environment, size)


class Terminal:
    """A command whose standard streams are a terminal."""

    def __init__(self, command, environment, size):
        self.command = " ".join(command)
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)
        self.output = ""

    def send(self, text):
        os.write(self.master, text.encode())

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text):
        """Waits until the command printed a text, and forgets what came up to there."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            if not self._read(deadline):
                raise Failed(f"`{self.command}` printed {self.output!r} on its terminal, and no {text!r}.")
        self.output = self.output.split(text, 1)[1]

    def detach(self):
        """Types the keys that leave a container running. Podman wants to read them one by one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for key in "\x10\x11":  # Ctrl-P Ctrl-Q
                try:
                    self.send(key)
                except OSError:
                    pass
                if not self._read(time.monotonic() + 0.1) and os.waitpid(self.pid, os.WNOHANG)[0]:
                    os.close(self.master)
                    return
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        raise Failed(f"`{self.command}` did not end after its detach keys.")

    def wait(self):
        """The exit code, when the command ends."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        if time.monotonic() >= deadline:
            os.kill(self.pid, 9)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)

    def _read(self, deadline):
        ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
        try:
            data = os.read(self.master, 65536) if ready else b""
        except OSError:  # EIO: nobody has the other side open any more
            data = b""
        self.output += data.decode(errors="replace")
        return data


# --- checks ---

CHECKS = []
# For checks that need neither root nor a cgroup. A check that names no engine is for podman and docker run by root.
EVERYONE = ("podman", "docker", "rootless")


def check(title, *engines):
    """Registers a check for the engines named: a function that takes an engine, and raises Failed or Skip."""

    def register(function):
        CHECKS.append((title, engines or ("podman", "docker"), function))
        return function

    return register


def same(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what} is {found!r}, not {wanted!r}.")


def contains(what, text, *parts):
    for part in parts:
        if part not in text:
            raise Failed(f"{what} is {text!r}, without {part!r}.")


def true(condition, sentence):
    if not condition:
        raise Failed(sentence)


def eventually(what, condition):
    """Waits for a condition, and returns what it found."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not happen within {PATIENCE} s.")
        time.sleep(0.05)
    return found


def unified():
    """Whether this machine has cgroup v2 alone."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def limit(v1, v2):
    """A command that prints a cgroup's file, in whichever hierarchy."""
    return f"cat /sys/fs/cgroup/{v2 if unified() else v1}"
