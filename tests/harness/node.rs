//! A machine of its own for one test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, sethostname};
use tempfile::TempDir;

use crate::cgroup::cgroup_directories;
use crate::kernel::Kernel;
use crate::process::{Process, processes};
use crate::program::program;
use crate::running::{Ended, Running};
use crate::wait::{PATIENCE, eventually, eventually_within};

/// What outlives pods below `--root`: images (not their leases, and not what is half pulled), and what the network knows of
/// itself (not the addresses and attachments of pods).
const KEPT: [&str; 13] = [
    "images/images.json",
    "images/blobs/",
    "images/snapshots/",
    "images/locks/",
    "cni/attachments.lock",
    "cni/attachments.wanted",
    "cni/default-network.json",
    "cni/default-network.lock",
    "cni/firewall.nft",
    "cni/network.lock",
    "cni/pod-cidr.json",
    "cni/networks/berth/last_reserved_ip.0",
    "cni/networks/berth/lock",
];

/// A machine of its own: see the crate's description.
pub struct Node {
    /// The word by which the node is known in command lines, environments, mounts, cgroups and paths.
    marker: String,
    scratch: TempDir,
    root: PathBuf,
    cgroup: PathBuf,
    before: Kernel,
    finished: bool,
}

impl Node {
    /// Takes the calling thread into fresh namespaces.
    ///
    /// # Panics
    /// If that is refused: tests need root.
    #[expect(clippy::new_without_default, reason = "it changes the calling thread")]
    pub fn new() -> Self {
        Self::make(None)
    }

    /// A node whose `--root` is a file system of that many bytes.
    ///
    /// # Panics
    /// As [`Node::new`].
    pub fn with_disk(bytes: u64) -> Self {
        Self::make(Some(bytes))
    }

    fn make(disk: Option<u64>) -> Self {
        assert!(
            geteuid().is_root(),
            "the black-box tests make namespaces, mounts and cgroups: run them as root"
        );
        let scratch = TempDir::with_prefix("berth-node-").expect("a directory for the node");
        let marker = scratch
            .path()
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let root = scratch.path().join("root");
        fs::create_dir(&root).expect("the node's root");
        enter_namespaces(&marker);
        if let Some(bytes) = disk {
            mount_tmpfs(&root, &format!("size={bytes},mode=0755"));
        }
        let cgroup = PathBuf::from(format!("/{marker}"));
        let before = Kernel::look(&marker, &root, &cgroup);
        Self {
            marker,
            scratch,
            root,
            cgroup,
            before,
            finished: false,
        }
    }

    /// Lets the node see the machine's systemd, which its own `/run` hides.
    ///
    /// # Panics
    /// If the link to it can't be made.
    pub fn show_systemd(&self) {
        let shown = std::os::unix::fs::symlink("/proc/1/root/run/systemd", "/run/systemd");
        shown.expect("a link to systemd's directory");
    }

    /// The word by which the node is known.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Where berth keeps everything on this node.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cgroup below which berth's are, relative to the root of each hierarchy.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A directory for the test's own files, which goes with the node.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Writes a file into the scratch directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, text).expect("a file of the test");
        path
    }

    /// A command of this node: `berth SUBCOMMAND …` with the node's places.
    pub fn berth<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program("berth"));
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--cgroup-root")
            .arg(&self.cgroup)
            .args(arguments);
        command
            .env("BERTH_TEST_NODE", &self.marker)
            .env("NO_COLOR", "1")
            .env_remove("RUST_BACKTRACE");
        command
    }

    /// Holds the number of the daemon's process.
    pub fn daemon_lock(&self) -> PathBuf {
        self.root.join("var/lib/berth/kubelet/pod-locks/daemon.lock")
    }

    /// Starts `berth daemon` with these options, and returns once it is the one that pods are handed to: a command that comes
    /// earlier starts another one.
    pub fn daemon(&self, options: &[&str]) -> Running {
        let daemon = Running::start(self.berth(["daemon"].iter().chain(options)), "");
        eventually("the daemon is one", || {
            let owner = fs::read_to_string(self.daemon_lock()).ok()?;
            (owner.trim() == daemon.pid().to_string()).then_some(())
        });
        daemon
    }

    /// Starts `berth run` of a manifest, given as text.
    pub fn run(&self, manifest: &str) -> Running {
        self.run_with(&[], manifest)
    }

    /// Starts `berth run OPTIONS` of a manifest, given as text.
    pub fn run_with(&self, options: &[&str], manifest: &str) -> Running {
        let file = self.file("pod.yaml", manifest);
        let mut command = self.berth(["run"]);
        command.args(options).arg(file);
        Running::start(command, "")
    }

    /// Runs a manifest, whose one pod ends by itself and well.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn succeeds(&self, manifest: &str) -> Ended {
        self.run(manifest).wait().expect_code(0).expect_no_panic()
    }

    /// The processes that belong to the node, the test's own left out.
    pub fn processes(&self) -> Vec<Process> {
        processes(&self.marker, &self.cgroup)
    }

    /// One that has this in its command line.
    pub fn process(&self, part: &str) -> Option<Process> {
        let all = self.processes().into_iter();
        all.filter(|process| process.state != 'Z')
            .find(|process| process.command.contains(part))
    }

    /// Sends a signal to a process that has this in its command line, and returns its number.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn signal(&self, part: &str, signal: Signal) -> i32 {
        let process = self
            .process(part)
            .unwrap_or_else(|| panic!("no process is {part:?}"));
        kill(Pid::from_raw(process.pid), signal).expect("it is there");
        process.pid
    }

    /// What is left of the node now that nothing should be, a line each.
    pub fn leftovers(&self) -> Vec<String> {
        let after = Kernel::look(&self.marker, &self.root, &self.cgroup);
        after.difference(&self.before, |line| {
            let file = line.strip_prefix("file var/lib/berth/");
            // The daemon's log outlives it, as logs of services do.
            line.contains("file var/log/berth/daemon.log")
                || file.is_some_and(|file| KEPT.iter().any(|kept| file.starts_with(kept)))
        })
    }

    /// Ends the node: nothing may be left but images.
    ///
    /// # Panics
    /// Names every leftover.
    #[track_caller]
    pub fn finish(mut self) {
        self.finished = true;
        // An orphan is the machine's init to reap, in its own time; whether it does is not berth's matter. And a daemon lets its
        // lock go, by which tests know its end, before it leaves its control group.
        let ends = |line: &String| line.contains("state Z") || line.contains(" daemon --on-demand");
        eventually_within_quietly(|| !self.leftovers().iter().any(ends));
        let leftovers = self.leftovers();
        self.clean_up();
        assert!(
            leftovers.is_empty(),
            "{} left behind:\n{}",
            self.marker,
            leftovers.join("\n")
        );
    }

    /// Kills and removes what a failed test left, so that the next one finds a clean machine.
    fn clean_up(&self) {
        let quiet = eventually_within_quietly(|| {
            let all = self.processes();
            for process in &all {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            all.iter().all(|process| process.state == 'Z')
        });
        if !quiet {
            eprintln!(
                "{}: processes that can't be killed: {:#?}",
                self.marker,
                self.processes()
            );
        }
        // A group is busy until its last process was reaped.
        for _ in 0..50 {
            for directory in cgroup_directories(&self.cgroup) {
                let _ = fs::remove_dir(directory);
            }
            if cgroup_directories(&self.cgroup).is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // What something is mounted on can't be removed with the scratch directory.
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let places = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
        for place in places.filter(|place| Path::new(place).starts_with(self.scratch.path())) {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.clean_up();
        assert!(
            std::thread::panicking(),
            "the test of {} ended without Node::finish",
            self.marker
        );
    }
}

fn eventually_within_quietly(mut done: impl FnMut() -> bool) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually_within(PATIENCE / 6, "the node's processes end", || done().then_some(()));
    }))
    .is_ok()
}

/// Takes the calling thread into namespaces of its own: network (with `lo` up), mounts (with a fresh `/run`), host name,
/// System V IPC.
fn enter_namespaces(name: &str) {
    let kinds = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(kinds).expect("fresh namespaces");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts that stay here");
    mount_tmpfs(Path::new("/run"), "mode=0755");
    sethostname(name).expect("a host name");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(
        up.is_ok_and(|status| status.success()),
        "ip (of iproute2) can't bring lo up"
    );
}

fn mount_tmpfs(place: &Path, options: &str) {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options)).expect("a tmpfs");
}
