/* The least that a container costs: one clone3 with all namespaces, the usual mounts, pivot_root, a group in six cgroup
 * hierarchies (or the one of v2), exec, wait, clean up. No configuration is read and nothing is checked that could be
 * left unchecked. Usage: floor [--all] ROOTFS PROGRAM
 *
 * With --all it also does, as cheaply as it can, what the benchmark's configuration demands and what a runtime must not
 * leave out: a group in every v1 hierarchy, device rules, links in /dev, masked and read-only paths, a read-only root,
 * no capabilities but three, a resource limit, a keyring, a session, a state directory, and a program of its own that a
 * container can't write to (CVE-2019-5736). What berth-oci takes above that is its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> can't be had together everywhere. */
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);
enum { DETACH = 2 };

static int all;

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

static void write_file(const char *directory, const char *file, const char *text) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

static void set_read_only(int mount) {
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attr, sizeof attr)) die("mount_setattr");
}

/* Executes this program once more, from a mount that can't be written. */
static void protect(char *argv[], char *environment[]) {
    struct statfs found;
    if (statfs("/proc/self/exe", &found)) die("/proc/self/exe");
    if (found.f_flags & MS_RDONLY) return;
    int self = syscall(SYS_open_tree, AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (self < 0) die("open_tree");
    set_read_only(self);
    syscall(SYS_execveat, self, "", argv, environment, AT_EMPTY_PATH);
    die("execveat");
}

static void devices(const char *group) {
    static const char *const allowed[] = {
        "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
        "c 136:* rwm",
    };
    char path[160];
    write_file(group, "devices.deny", "a");
    snprintf(path, sizeof path, "%s/devices.allow", group);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (write(fd, allowed[i], strlen(allowed[i])) < 0) die(path);
    close(fd);
}

static void links_and_paths(void) {
    static const char *const links[][2] = {
        {"/proc/self/fd", "dev/fd"},         {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
        {"/proc/self/fd/2", "dev/stderr"},   {"/proc/kcore", "dev/core"},      {"pts/ptmx", "dev/ptmx"},
    };
    static const char *const masked[] = {"proc/kcore", "proc/keys", "proc/timer_list"};
    static const char *const read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1])) die(links[i][1]);
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        if (mount("dev/null", masked[i], NULL, MS_BIND, NULL) && errno != ENOENT) die(masked[i]);
    mount_at("tmpfs", "sys/firmware", "tmpfs", MS_RDONLY, "nr_inodes=1");
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++) {
        int tree = syscall(SYS_open_tree, AT_FDCWD, read_only[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree < 0 && errno == ENOENT) continue;
        set_read_only(tree);
        if (syscall(SYS_move_mount, tree, "", AT_FDCWD, read_only[i], MOVE_MOUNT_F_EMPTY_PATH)) die(read_only[i]);
        close(tree);
    }
    int root = open(".", O_PATH | O_CLOEXEC);
    set_read_only(root);
    close(root);
}

static void drop_privileges(void) {
    const uint32_t kept = 1u << CAP_AUDIT_WRITE | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{.effective = kept, .permitted = kept}};
    struct rlimit limit = {1024, 1024};
    for (int i = 0; i < 64; i++)
        if (!(i < 32 && kept >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0)) break;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    if (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, 0, 0, 0) || syscall(SYS_setresuid, 0, 0, 0))
        die("change the user");
    if (setrlimit(RLIMIT_NOFILE, &limit) || syscall(SYS_capset, &header, sets)) die("capset");
}

static void container(const char *root, char *const argv[], const int *groups, int count) {
    if (all && (setsid() < 0 || syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "floor") < 0)) die("session");
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
    if (all) links_and_paths();
    if (syscall(SYS_pivot_root, ".", ".")) die("pivot_root");
    if (umount2(".", DETACH) || chdir("/")) die("leave the old root");
    if (sethostname("floor", 5)) die("sethostname");
    for (int i = 0; i < count; i++)
        if (write(groups[i], "0", 1) != 1) die("enter a cgroup");
    if (all) {
        if (unshare(CLONE_NEWCGROUP)) die("cgroup namespace");
        drop_privileges();
        syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
    }
    execv(argv[0], argv);
    die(argv[0]);
}

int main(int argc, char *argv[], char *environment[]) {
    static const char *const v1[] = {"cpu", "cpuacct", "memory", "devices", "freezer", "pids", "cpuset", "blkio", "systemd"};
    char paths[9][128], file[160], state[128], config[160];
    int groups[9], count = 0, status;
    all = argc > 1 && strcmp(argv[1], "--all") == 0;
    if (argc < 3 + all) return 2;
    if (all) {
        protect(argv, environment);
        snprintf(state, sizeof state, "%s.floor-%d", argv[2], getpid());
        snprintf(config, sizeof config, "%s/state", state);
        if (mkdir(state, 0700)) die(state);
        int fd = open(config, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, v1, sizeof v1) < 0) die(config);
        close(fd);
    }
    int unified = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    for (int i = 0; i < (unified ? 1 : all ? 9 : 6); i++) {
        char *path = paths[count];
        snprintf(path, sizeof paths[0], "/sys/fs/cgroup/%s/berth-bench-floor-%d", unified ? "" : v1[i], getpid());
        if (mkdir(path, 0755)) {
            /* A machine without one of the hierarchies that the floor leaves out. */
            if (i > 5 && errno == ENOENT) continue;
            die(path);
        }
        if (!unified && i == 6) {
            write_file(path, "cpuset.cpus", "0");
            write_file(path, "cpuset.mems", "0");
        }
        if (!unified && i == 3 && all) devices(path);
        snprintf(file, sizeof file, "%s/%s", path, unified ? "cgroup.procs" : "tasks");
        groups[count] = open(file, O_WRONLY | O_CLOEXEC);
        if (groups[count] < 0) die(file);
        count++;
    }
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | (all ? 0 : CLONE_NEWCGROUP),
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) container(argv[1 + all], argv + 2 + all, groups, count);
    if (waitpid(pid, &status, 0) < 0) die("waitpid");
    for (int i = 0; i < count; i++)
        if (rmdir(paths[i])) die(paths[i]);
    if (all && (unlink(config) || rmdir(state))) die(state);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
