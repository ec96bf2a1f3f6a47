/* The least that a command in a container costs: processor time of making a process, entering what a container is, running a
 * static program that does nothing, and reaping it. Nothing is checked, no identity is taken on, no output is collected.
 * Usage: exec_floor PAUSE ROUNDS PROGRAM [ARGUMENT...]
 * PAUSE is how many milliseconds lie between two commands: with none all is in the processor's caches, which is not so for a
 * probe that comes each second.
 *
 * Each line is a way of doing it and the milliseconds of processor time that one command took, its parent's included:
 *   plain       vfork, exec, wait: no container at all
 *   namespaces  the same, from outside, in the container's PID, mount, network, IPC, UTS and cgroup namespaces
 *   groups      the same, from outside, in the container's group of every v1 hierarchy (tasks), and of v2 (CLONE_INTO_CGROUP)
 *   both        namespaces and groups
 *   own group   both, in a group of its own below the container's that is made before and removed after
 *   inside      vfork, exec, wait by a process that is in the container's namespaces and groups already
 *   inside, own group   that, in a group of its own
 */
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HIERARCHIES = 9, BATCH = 100 };

static const char *const v1[] = {"cpu", "cpuacct", "memory", "devices", "freezer", "pids", "cpuset", "blkio", "systemd"};
static char directories[HIERARCHIES + 1][160];
static int entries[HIERARCHIES], hierarchies, unified = -1;
static int container = -1, own_pids = -1;
static pid_t container_pid;
static char **command;
static struct timespec between;

static void die(const char *what) {
    fprintf(stderr, "exec_floor: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static double used(int who) {
    struct rusage usage;
    getrusage(who, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

static double used_in_all(void) { return used(RUSAGE_SELF) + used(RUSAGE_CHILDREN); }

/* A group of our own in each hierarchy; entered through files that are opened once. */
static void make_groups(void) {
    char path[200];
    for (size_t i = 0; i < sizeof v1 / sizeof *v1; i++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/tasks", v1[i]);
        if (access(path, F_OK)) continue;
        char *directory = directories[hierarchies];
        snprintf(directory, sizeof *directories, "/sys/fs/cgroup/%s/exec-floor-%d", v1[i], getpid());
        if (mkdir(directory, 0755)) die(directory);
        if (strcmp(v1[i], "cpuset") == 0) {
            static const char *const inherited[] = {"cpuset.cpus", "cpuset.mems"};
            for (int file = 0; file < 2; file++) {
                char value[200];
                snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s", inherited[file]);
                int from = open(path, O_RDONLY);
                ssize_t length = read(from, value, sizeof value);
                snprintf(path, sizeof path, "%s/%s", directory, inherited[file]);
                int to = open(path, O_WRONLY);
                if (length < 0 || write(to, value, length) != length) die(path);
                close(from);
                close(to);
            }
        }
        snprintf(path, sizeof path, "%s/tasks", directory);
        if ((entries[hierarchies++] = open(path, O_WRONLY | O_CLOEXEC)) < 0) die(path);
    }
    const char *root = access("/sys/fs/cgroup/cgroup.procs", F_OK) ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup";
    snprintf(path, sizeof path, "%s/cgroup.procs", root);
    if (access(path, F_OK)) return;
    snprintf(directories[HIERARCHIES], sizeof *directories, "%s/exec-floor-%d", root, getpid());
    if (mkdir(directories[HIERARCHIES], 0755)) die(directories[HIERARCHIES]);
    unified = open(directories[HIERARCHIES], O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void enter_groups(void) {
    for (int i = 0; i < hierarchies; i++)
        if (write(entries[i], "0", 1) != 1) die("enter a group");
}

static pid_t make(uint64_t flags, int group) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    if (group >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group;
    }
    pid_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0) die("clone3");
    return pid;
}

/* What holds the namespaces. */
static void make_container(void) {
    uint64_t namespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    container_pid = make(namespaces, unified);
    if (container_pid == 0) {
        enter_groups();
        for (;;) pause();
    }
    container = syscall(SYS_pidfd_open, container_pid, 0);
    own_pids = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (container < 0 || own_pids < 0) die("pidfd_open");
}

static void reap(pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid) die("wait");
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        errno = 0;
        die("the command failed");
    }
}

static void execute(void) {
    execv(command[0], command);
    die(command[0]);
}

/* The child shares our memory until it executes something, and must not return from here: hence no function of its own. */
static void run(int namespaces, int groups, int group) {
    if (namespaces && setns(container, CLONE_NEWPID)) die("setns");
    pid_t pid = vfork();
    if (pid == 0) {
        if (groups) enter_groups();
        if (namespaces && setns(container, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP))
            die("setns");
        if (group >= 0) {
            if (write(group, "0", 1) != 1) die("enter its own group");
        }
        execute();
    }
    if (namespaces && setns(own_pids, CLONE_NEWPID)) die("setns");
    reap(pid);
}

/* As above, begun in a group of v2: a fork, since vfork has no arguments. */
static void run_in(int namespaces, int groups, int group) {
    if (namespaces && setns(container, CLONE_NEWPID)) die("setns");
    pid_t pid = make(0, group);
    if (pid == 0) {
        if (groups) enter_groups();
        if (namespaces && setns(container, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP))
            die("setns");
        execute();
    }
    if (namespaces && setns(own_pids, CLONE_NEWPID)) die("setns");
    reap(pid);
}

static void in_own_group(int namespaces, int groups) {
    char path[200];
    int has_unified = unified >= 0;
    snprintf(path, sizeof path, "%s/one", directories[has_unified ? HIERARCHIES : 4]);
    if (mkdir(path, 0755)) die(path);
    int group = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    run_in(namespaces, groups, group);
    close(group);
    if (rmdir(path)) die(path);
}

static void plain(void) { run(0, 0, -1); }
static void in_namespaces(void) { run(1, 0, -1); }
static void in_groups(void) { unified >= 0 ? run_in(0, 1, unified) : run(0, 1, -1); }
static void in_both(void) { unified >= 0 ? run_in(1, 1, unified) : run(1, 1, -1); }
static void from_outside(void) { in_own_group(1, 1); }
static void from_inside(void) { in_own_group(0, 0); }

static double measure(void (*one)(void)) {
    double before = used_in_all();
    for (int i = 0; i < BATCH; i++) {
        if (between.tv_nsec) nanosleep(&between, NULL);
        one();
    }
    return (used_in_all() - before) / BATCH;
}

/* What a process takes that has entered everything once. */
static double measure_inside(void (*one)(void)) {
    int result[2];
    double cost;
    if (pipe(result)) die("pipe");
    if (setns(container, CLONE_NEWPID)) die("setns");
    pid_t pid = make(0, unified);
    if (pid == 0) {
        enter_groups();
        if (setns(container, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)) die("setns");
        cost = measure(one);
        if (write(result[1], &cost, sizeof cost) != sizeof cost) die("tell");
        _exit(0);
    }
    if (setns(own_pids, CLONE_NEWPID)) die("setns");
    reap(pid);
    if (read(result[0], &cost, sizeof cost) != sizeof cost) die("hear");
    close(result[0]);
    close(result[1]);
    return cost;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char *argv[]) {
    static const struct {
        const char *name;
        void (*one)(void);
        int inside;
    } ways[] = {
        {"plain", plain, 0},         {"namespaces", in_namespaces, 0}, {"groups", in_groups, 0},
        {"both", in_both, 0},        {"own group", from_outside, 0},   {"inside", plain, 1},
        {"inside, own group", from_inside, 1},
    };
    enum { WAYS = sizeof ways / sizeof *ways, MOST = 1000 };
    static double costs[WAYS][MOST];
    if (argc < 4) return 2;
    int milliseconds = atoi(argv[1]), rounds = (atoi(argv[2]) + BATCH - 1) / BATCH;
    if (milliseconds < 0 || milliseconds > 999 || rounds < 1 || rounds > MOST) return 2;
    between.tv_nsec = milliseconds * 1000000L;
    command = argv + 3;
    make_groups();
    make_container();
    for (int round = 0; round < rounds; round++)
        for (int way = 0; way < WAYS; way++)
            costs[way][round] = ways[way].inside ? measure_inside(ways[way].one) : measure(ways[way].one);
    kill(container_pid, SIGKILL);
    waitpid(container_pid, NULL, 0);
    for (int i = 0; i < hierarchies; i++)
        if (rmdir(directories[i])) die(directories[i]);
    if (unified >= 0 && rmdir(directories[HIERARCHIES])) die(directories[HIERARCHIES]);
    for (int way = 0; way < WAYS; way++) {
        qsort(costs[way], rounds, sizeof(double), compare);
        printf("%s\t%.3f\n", ways[way].name, costs[way][rounds / 2]);
    }
    return 0;
}
