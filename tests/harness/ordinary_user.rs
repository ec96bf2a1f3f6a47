//! An ordinary user of a node, who has a home, a runtime directory and subordinate ids.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::node::Node;
use crate::program::program;
use crate::wait::eventually;

const NAME: &str = "tested";
const ID: u32 = 1500;
/// The first subordinate id; there are 65536.
const SUBORDINATE: u32 = 200_000;

/// The machine's files that are other ones for the node.
const REPLACED: [&str; 5] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/subuid",
    "/etc/subgid",
    "/dev/net/tun",
];

/// A user that only the node has got.
pub struct OrdinaryUser<'a> {
    node: &'a Node,
    home: PathBuf,
    runtime: PathBuf,
}

/// Runs a test as a user of a node, and looks for what is left when the user's pods have ended.
///
/// # Panics
/// If anything is left, or the test panics.
pub fn as_user(test: impl FnOnce(&Node, &OrdinaryUser<'_>)) {
    let node = Node::new();
    let user = OrdinaryUser::new(&node);
    test(&node, &user);
    user.ends();
    assert_eq!(user.leftovers(), [""; 0]);
    user.remove();
    node.finish();
}

impl<'a> OrdinaryUser<'a> {
    /// Makes the user, in files that only the calling thread's mount namespace sees.
    ///
    /// # Panics
    /// If the machine lacks what is needed: `hack/setup` installs it.
    pub fn new(node: &'a Node) -> Self {
        let home = node.scratch().join("home");
        let runtime = PathBuf::from(format!("/run/user/{ID}"));
        let private = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.and_then(|()| chown(path, Some(ID), Some(ID)))
                .expect("a directory of the user");
        };
        private(&home);
        private(&runtime);
        open_to_all(node.scratch());
        open_to_all(Path::new("/run/user"));
        let ids = format!("{NAME}:{SUBORDINATE}:65536\n");
        let passwd = format!("{NAME}:x:{ID}:{ID}::{}:/bin/sh\n", home.display());
        for (path, more) in [
            ("/etc/passwd", passwd.as_str()),
            ("/etc/group", &format!("{NAME}:x:{ID}:\n")),
            ("/etc/subuid", &ids),
            ("/etc/subgid", &ids),
        ] {
            let text = fs::read_to_string(path).unwrap_or_default();
            let name = path.rsplit('/').next().expect("it has a name");
            let own = node.file(name, &format!("{text}{more}"));
            bind(&own, path);
        }
        // Everybody may use it on most machines. Not below `/run`, where no devices are.
        let tun = node.scratch().join("tun");
        let made = Command::new("mknod")
            .args(["-m", "666"])
            .arg(&tun)
            .args(["c", "10", "200"])
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "mknod can't make a device"
        );
        bind(&tun, "/dev/net/tun");
        Self { node, home, runtime }
    }

    /// The user's home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The user's runtime directory, `$XDG_RUNTIME_DIR`.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// A file in the user's home.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.join(name);
        fs::write(&path, text).expect("a file of the user's");
        chown(&path, Some(ID), Some(ID)).expect("it is given to the user");
        path
    }

    /// Gives a file to the user.
    ///
    /// # Panics
    /// If it can't be given.
    pub fn own(&self, path: &Path) {
        chown(path, Some(ID), Some(ID)).expect("it is given to the user");
    }

    /// A command of the user's: `berth SUBCOMMAND …`, at the user's places.
    pub fn berth(&self, arguments: &[&str]) -> Command {
        self.berth_with(&[], arguments)
    }

    /// The same with another search path.
    pub fn berth_in(&self, path: &str, arguments: &[&str]) -> Command {
        self.berth_with(&[("PATH", path)], arguments)
    }

    /// The same with more in its environment.
    pub fn berth_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &ID.to_string(), "--regid", &ID.to_string()])
            .args(["--init-groups", "--inh-caps=-all", "env", "-i"])
            .arg(format!("PATH={}", std::env::var("PATH").unwrap_or_default()))
            .arg(format!("HOME={}", self.home.display()))
            .arg(format!("USER={NAME}"))
            .arg(format!("XDG_RUNTIME_DIR={}", self.runtime.display()))
            .arg(format!("BERTH_TEST_NODE={}", self.node.marker()))
            .arg("NO_COLOR=1")
            .args(variables.iter().map(|(name, value)| format!("{name}={value}")))
            .arg(program("berth"))
            .args(arguments)
            .current_dir(&self.home);
        command
    }

    /// Waits until nothing of the user's runs any more.
    ///
    /// # Panics
    /// If something goes on.
    pub fn ends(&self) {
        eventually("the user's node ends", || {
            self.node.processes().is_empty().then_some(())
        });
    }

    /// Takes the user from the node.
    ///
    /// # Panics
    /// If that is refused.
    pub fn remove(self) {
        for path in REPLACED {
            umount2(path, MntFlags::MNT_DETACH).expect("the machine's file shows again");
        }
    }

    /// What is left in the user's directories beside images and what the network remembers, a line each.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![self.home.join(".local/share/berth"), self.runtime.join("berth")];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_kept = path.components().any(|part| {
                    ["images", "cni", "daemon.log"]
                        .map(std::ffi::OsStr::new)
                        .contains(&part.as_os_str())
                });
                if is_kept {
                    continue;
                }
                if path.is_dir() {
                    pending.push(path);
                } else {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }
}

fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        .expect("a directory that all may enter");
}

fn bind(source: &Path, target: &str) {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none).expect("a bind mount");
}
