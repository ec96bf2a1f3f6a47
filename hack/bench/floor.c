/* The least that a container costs: one clone3 with all namespaces, the usual mounts, pivot_root, a group in six cgroup
 * hierarchies (or the one of v2), exec, wait, clean up. No configuration is read and nothing is checked that could be
 * left unchecked. Usage: floor ROOTFS PROGRAM */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    if (mount(source, target, type, flags, data)) die(target);
}

static void node(const char *path, int major, int minor) {
    if (mknod(path, S_IFCHR | 0666, makedev(major, minor))) die(path);
}

static void container(const char *root, char *const argv[], const int *groups, int count) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) die("private root");
    mount_at(root, root, NULL, MS_BIND, NULL);
    if (chdir(root)) die("chdir");
    mount_at("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k");
    if (mkdir("dev/pts", 0755) || mkdir("dev/shm", 01777) || mkdir("dev/mqueue", 01777)) die("mkdir in dev");
    mount_at("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
    mount_at("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    mount_at("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
    umask(0);
    node("dev/null", 1, 3);
    node("dev/zero", 1, 5);
    node("dev/full", 1, 7);
    node("dev/random", 1, 8);
    node("dev/urandom", 1, 9);
    node("dev/tty", 5, 0);
    if (syscall(SYS_pivot_root, ".", ".")) die("pivot_root");
    if (umount2(".", MNT_DETACH) || chdir("/")) die("leave the old root");
    if (sethostname("floor", 5)) die("sethostname");
    for (int i = 0; i < count; i++)
        if (write(groups[i], "0", 1) != 1) die("enter a cgroup");
    execv(argv[0], argv);
    die(argv[0]);
}

int main(int argc, char *argv[]) {
    static const char *const v1[] = {"cpu", "cpuacct", "memory", "devices", "freezer", "pids"};
    char paths[6][128], file[160];
    int groups[6], count = 0, status;
    if (argc < 3) return 2;
    int unified = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    for (int i = 0; i < (unified ? 1 : 6); i++) {
        snprintf(paths[i], sizeof paths[i], "/sys/fs/cgroup/%s/berth-bench-floor-%d", unified ? "" : v1[i], getpid());
        if (mkdir(paths[i], 0755)) die(paths[i]);
        snprintf(file, sizeof file, "%s/%s", paths[i], unified ? "cgroup.procs" : "tasks");
        groups[i] = open(file, O_WRONLY | O_CLOEXEC);
        if (groups[i] < 0) die(file);
        count++;
    }
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) container(argv[1], argv + 2, groups, count);
    if (waitpid(pid, &status, 0) < 0) die("waitpid");
    for (int i = 0; i < count; i++)
        if (rmdir(paths[i])) die(paths[i]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
