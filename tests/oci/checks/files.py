"""What the container sees of files: volumes, tmpfs, a read-only root, devices, and copying in and out."""

import os
import subprocess

from engine import EVERYONE, IMAGE, check, contains, same, true


@check("volumes: read-write, read-only, a file, one in another, a named one", *EVERYONE)
def volumes(e):
    outside = e.scratch / "volume"
    (outside / "sub").mkdir(parents=True, exist_ok=True)
    for directory in (outside, outside / "sub"):
        directory.chmod(0o777)
    (outside / "file").write_text("from outside")
    same("What it reads", e.box(["-v", f"{outside}:/v:ro"], "cat", "/v/file"), "from outside")
    contains("Writing to a read-only one", e.script(["-v", f"{outside}:/v:ro"], "touch /v/new 2>&1 || true"), "Read-only file system")
    e.script(["-v", f"{outside}:/v"], "echo from inside > /v/written")
    same("What it wrote", (outside / "written").read_text(), "from inside\n")
    same("A file", e.box(["-v", f"{outside}/file:/etc/one/file:ro"], "cat", "/etc/one/file"), "from outside")
    text = e.script(["-v", f"{outside}:/v:ro", "-v", f"{outside}/sub:/v/sub"], "touch /v/sub/x && ls /v/sub")
    same("One in another", text, "x")
    volume = f"volume-{os.getpid()}"
    e.script(["-v", f"{volume}:/data"], "echo kept > /data/file")
    same("A named one", e.box(["-v", f"{volume}:/data"], "cat", "/data/file"), "kept")
    e.ok("volume", "rm", volume)


@check("mount propagation")
def propagation(e):
    outside = e.scratch / "shared"
    (outside / "in").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", outside], check=True)
    try:
        subprocess.run(["mount", "--make-shared", outside], check=True)
        (outside / "in").mkdir()
        name = e.background(["-v", f"{outside}:/v:rslave"])
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", outside / "in"], check=True)
        (outside / "in/late").write_text("late")
        same("A later mount", e.inside(name, "cat /v/in/late"), "late")
        e.script(["--privileged", "-v", f"{outside}:/v:rshared"], "mkdir /v/out && mount -t tmpfs tmpfs /v/out && touch /v/out/file")
        true((outside / "out/file").exists(), "A mount in an rshared volume is not seen outside.")
        name = e.background(["-v", f"{outside}:/v:rprivate"])
        subprocess.run(["umount", outside / "out"], check=True)
        true(e.do("exec", name, "test", "-e", "/v/out/file").code == 0, "An rprivate volume follows the host's mounts.")
        e.clean()
    finally:
        subprocess.run(["umount", "-R", outside], check=True)


@check("--mount with options", *EVERYONE)
def mounts(e):
    outside = e.scratch / "options"
    outside.mkdir(exist_ok=True)
    same("bind", e.box(["--mount", f"type=bind,source={outside},target=/v,readonly"], "sh", "-c", "touch /v/x 2>/dev/null || echo ro"), "ro")
    text = e.script(["--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770"], "grep ' /t ' /proc/mounts; stat -c %a /t")
    contains("tmpfs", text, "size=1024k", "1770")


@check("--tmpfs", *EVERYONE)
def tmpfs(e):
    text = e.script(["--tmpfs", "/t:size=2m,mode=1711,noexec"], "grep ' /t ' /proc/mounts; stat -c %a /t; touch /t/x && echo ok")
    contains("The mount", text, "size=2048k", "noexec", "1711", "ok")


@check("--read-only", *EVERYONE)
def read_only(e):
    text = e.script(["--read-only", "--tmpfs", "/t"], "touch /x 2>&1; touch /etc/x 2>&1; touch /t/x && echo writable; "
                    "touch /dev/shm/x && echo shm")
    same("The output", text.splitlines(), ["touch: /x: Read-only file system", "touch: /etc/x: Read-only file system", "writable", "shm"])


@check("--shm-size", *EVERYONE)
def shm(e):
    contains("The mount", e.script(["--shm-size", "2m"], "grep ' /dev/shm ' /proc/mounts"), "size=2048k")


@check("--device and the device cgroup")
def devices(e):
    text = e.script(["--device", "/dev/zero:/dev/nought", "--device", "/dev/null:/dev/read:r", "--cap-add", "MKNOD"],
                    "head -c 3 /dev/nought | wc -c; echo x > /dev/nought && echo written; "
                    "mknod /dev/disk b 7 0; head -c 1 /dev/disk 2>&1 || true")
    same("The output", text.splitlines()[:2], ["3", "written"])
    contains("Reading a device that was not given", text, "Operation not permitted")
    text = e.script(["--device", "/dev/loop-control:/dev/control:r"], "(exec 3</dev/control) && echo read; (exec 3>/dev/control) 2>&1 || true")
    contains("A device to read only", text, "read", "Operation not permitted")


@check("the default devices and links in /dev", *EVERYONE)
def default_devices(e):
    text = e.script([], "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; "
                    "for l in fd stdin stdout stderr; do readlink /dev/$l; done; ls -d /dev/pts/ptmx; test -d /dev/pts -a -d /dev/mqueue -a -d /dev/shm && echo all")
    contains("The list", text, "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n/dev/pts/ptmx\nall")
    true("no " not in text, f"A device is missing: {text!r}.")


@check("masked and read-only paths", *EVERYONE)
def masked(e):
    text = e.script([], "for f in kcore keys timer_list; do test ! -e /proc/$f || wc -c < /proc/$f; done; ls -A /proc/acpi /sys/firmware 2>&1 | grep -v -e : -e '^$'; true")
    same("What is read", set(text.split()), {"0"})
    done = e.do("run", "--rm", IMAGE, "sh", "-c", "echo 1 > /proc/sys/vm/drop_caches; touch /sys/x; true")
    same("Refusals of writing", done.err.count("Read-only file system"), 2)


@check("cp in and out")
def copy(e):
    source = e.scratch / "to-copy"
    source.write_text("copied")
    name = e.background([])
    e.ok("cp", source, f"{name}:/tmp/in")
    same("What went in", e.inside(name, "cat /tmp/in"), "copied")
    e.inside(name, "mkdir -p /tmp/d && echo inner > /tmp/d/file")
    e.ok("cp", f"{name}:/tmp/d", e.scratch / "copied-out")
    same("What came out", (e.scratch / "copied-out/file").read_text(), "inner\n")
    e.ok("pause", name)
    done = e.do("cp", f"{name}:/tmp/in", e.scratch / "of-paused")
    e.ok("unpause", name)
    same("cp out of a paused one", done.code, 0)


@check("a working directory that is missing is made", "docker")
def working_directory(e):
    same("The directory", e.box(["-w", "/not/there/yet"], "pwd"), "/not/there/yet")
