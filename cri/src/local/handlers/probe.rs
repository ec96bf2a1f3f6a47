//! What a runtime's program says that it can do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use berth_shim::protocol::ExecCgroup;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a program may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of what it tells is read.
const MAX_TEXT: u64 = 1 << 20;

/// What a runtime can do. One that does not know the verb `features` can do nothing that is newer than that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Features {
    /// The newest version of the OCI runtime specification that it knows, as two numbers.
    pub(super) specification: (u32, u32),
    /// Mounts can be read-only with all that is mounted below them.
    pub(super) recursive_read_only: bool,
    /// Mounts can be id-mapped.
    pub(super) id_mapped_mounts: bool,
    /// It knows user namespaces.
    pub(super) user_namespaces: bool,
    /// How its `exec` is told of a cgroup.
    pub(super) exec_cgroup: ExecCgroup,
}

impl Features {
    /// Whether a pod can have a user namespace: volumes of such pods are id-mapped.
    pub(super) fn has_user_namespaces(&self) -> bool {
        self.user_namespaces && self.id_mapped_mounts
    }
}

/// Which file a program is: another one is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    pub(super) fn of(program: &Path) -> Self {
        let found = fs::metadata(program).ok();
        Self(found.map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec())))
    }
}

/// Asks a program.
pub(super) async fn ask(program: &Path, args: &[String]) -> Features {
    let (features, exec) = tokio::join!(
        said(program, args, &["features"]),
        said(program, args, &["exec", "--help"])
    );
    Features {
        exec_cgroup: exec_cgroup(&exec.unwrap_or_default()),
        ..of(&features.unwrap_or_default())
    }
}

/// What it says; `None` if it fails or hangs.
async fn said(program: &Path, args: &[String], verb: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(args)
        .args(verb)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    let stdout = child.stdout.take()?;
    let tell = async {
        stdout.take(MAX_TEXT).read_to_end(&mut text).await.ok()?;
        child.wait().await.ok()
    };
    let status = tokio::time::timeout(PATIENCE, tell).await.ok()??;
    status
        .success()
        .then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The runtime specification's "features" structure.
fn of(text: &str) -> Features {
    let said: Value = serde_json::from_str(text).unwrap_or_default();
    let lists = |list: &Value, name: &str| {
        list.as_array()
            .is_some_and(|list| list.iter().any(|entry| entry == name))
    };
    let linux = &said["linux"];
    Features {
        specification: version(said["ociVersionMax"].as_str().unwrap_or_default()),
        recursive_read_only: lists(&said["mountOptions"], "rro"),
        id_mapped_mounts: linux["mountExtensions"]["idmap"]["enabled"] == true,
        user_namespaces: lists(&linux["namespaces"], "user"),
        exec_cgroup: ExecCgroup::default(),
    }
}

/// The first two numbers. One that is in preparation has not all that it will have.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next())
}

fn exec_cgroup(help: &str) -> ExecCgroup {
    let Some((_, option)) = help.split_once("--cgroup") else {
        return ExecCgroup::Unknown;
    };
    if option
        .lines()
        .next()
        .is_some_and(|line| line.contains("<controller>:"))
    {
        ExecCgroup::Controllers
    } else {
        ExecCgroup::Path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_what_the_program_says() {
        let runc_1_1 = r#"{ "ociVersionMin": "1.0.0", "ociVersionMax": "1.0.2-dev", "mountOptions": ["ro", "rro"],
            "linux": { "namespaces": ["cgroup", "user"] } }"#;
        let found = of(runc_1_1);
        assert_eq!(found.specification, (1, 0));
        assert!(found.recursive_read_only && found.user_namespaces && !found.has_user_namespaces());
        let runc_1_3 = r#"{ "ociVersionMax": "1.2.1", "mountOptions": ["rro"],
            "linux": { "namespaces": ["user"], "mountExtensions": { "idmap": { "enabled": true } } } }"#;
        let found = of(runc_1_3);
        assert_eq!(found.specification, (1, 2));
        assert!(found.has_user_namespaces());
        for nothing in ["", "unknown command features", "{}", "[]", "{\"linux\": 3}"] {
            assert_eq!(of(nothing), Features::default(), "{nothing}");
        }
    }

    #[test]
    fn the_option_of_exec_is_read_from_its_help() {
        for (help, expected) in [
            (
                "   --cgroup value   run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.\n",
                ExecCgroup::Controllers,
            ),
            (
                "      --cgroup=PATH          sub-cgroup in the container\n",
                ExecCgroup::Path,
            ),
            ("  --cwd=CWD\n", ExecCgroup::Unknown),
            ("", ExecCgroup::Unknown),
        ] {
            assert_eq!(exec_cgroup(help), expected, "{help}");
        }
    }

    #[tokio::test]
    async fn a_program_that_says_nothing_can_do_nothing() {
        assert_eq!(ask(Path::new("/bin/false"), &[]).await, Features::default());
        assert_eq!(ask(Path::new("/no/such"), &[]).await, Features::default());
    }
}
