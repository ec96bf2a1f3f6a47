//! What the running kernel lets containers have.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use super::{EngineConfig, Inner};
use crate::types::RuntimeHandler;

/// mount_setattr(2), which makes a whole tree of mounts read-only.
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);
/// How long trying something out may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What was found by trying it out once: a kernel and a file system stay what they are.
#[derive(Debug, Default)]
pub(super) struct Probed {
    user_namespaces: OnceCell<bool>,
}

impl Probed {
    /// Whether the files of pods can be shown with the ids of a user namespace.
    pub(super) async fn user_namespaces(&self, config: &EngineConfig) -> bool {
        let probe = async {
            let found = probe(config).await;
            if let Err(reason) = &found {
                tracing::info!("Pods can't have user namespaces of their own here: {reason}");
            }
            found.is_ok()
        };
        *self.user_namespaces.get_or_init(|| probe).await
    }
}

async fn probe(config: &EngineConfig) -> Result<(), String> {
    let output = Command::new(&config.shim_program)
        .arg("probe")
        .arg(&config.lib_dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PROBE_TIMEOUT, output)
        .await
        .map_err(|_| "trying it took too long.".to_owned())?
        .map_err(|error| format!("{} can't be run: {error}.", config.shim_program.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// What the built-in handler can do here; others can have no more of it.
pub(super) async fn built_in(inner: &Inner) -> RuntimeHandler {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The one of the things that can change meanwhile.
    let namespaces = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let user_namespaces = are_allowed(&namespaces) && inner.probed.user_namespaces(&inner.config).await;
    RuntimeHandler {
        name: String::new(),
        recursive_read_only_mounts: version(&release).is_some_and(|version| version >= RECURSIVE_READ_ONLY),
        user_namespaces,
    }
}

fn are_allowed(max_user_namespaces: &str) -> bool {
    max_user_namespaces.trim().parse::<u64>().is_ok_and(|max| max > 0)
}

/// The first two numbers of uname(2)'s release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_follow_the_kernel_and_its_settings() {
        for (release, expected) in [
            ("5.11.22-generic", Some((5, 11))),
            ("6.18.44-fc\n", Some((6, 18))),
            ("10.0.1", Some((10, 0))),
            ("5.19-rc1", Some((5, 19))),
            ("strange", None),
        ] {
            assert_eq!(version(release), expected, "{release:?}");
        }
        for (text, allowed) in [("63000\n", true), ("0\n", false), ("", false)] {
            assert_eq!(are_allowed(text), allowed, "{text:?}");
        }
    }
}
