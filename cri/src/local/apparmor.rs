//! A container's AppArmor profile.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::engine::EngineError;
use crate::types::AppArmorProfile;

/// The engine's own AppArmor profile.
const DEFAULT_PROFILE: &str = "berth-default";
/// What it says: everything that a container does, but neither mounts nor the kernel's switches and its processes'
/// memory, and signals and traces only among containers.
const DEFAULT_PROFILE_TEXT: &str = include_str!("berth-default.apparmor");
/// The kernel's list of profiles that are loaded, `name (mode)` a line.
const LOADED_PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Where the program is that loads profiles.
const PARSERS: [&str; 3] = [
    "/sbin/apparmor_parser",
    "/usr/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
];

/// Whether the kernel has AppArmor, it is on, and is ours to use: only the machine's root may load profiles, and see which
/// ones are loaded.
fn apparmor_is_enabled() -> bool {
    berth_runtime::is_machines_root()
        && fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with(b"Y"))
}

/// The profile that a container's programs run under, if any; the engine's own is loaded where it is not.
///
/// As in containerd: where AppArmor is off, a profile that is asked for by name is an error, the engine's own too, and
/// saying nothing is none.
pub(super) async fn profile(
    wanted: &AppArmorProfile,
    privileged: bool,
) -> Result<Option<String>, EngineError> {
    let choice = choose(wanted, privileged, apparmor_is_enabled())?;
    match choice {
        Choice::None => Ok(None),
        Choice::Named(name) => match is_loaded(&name)? {
            true => Ok(Some(name)),
            false => Err(EngineError::InvalidArgument(format!(
                "The AppArmor profile {name:?} is not loaded on this node; load it with apparmor_parser."
            ))),
        },
        Choice::Default { is_asked_for } => {
            if is_loaded(DEFAULT_PROFILE)? {
                return Ok(Some(DEFAULT_PROFILE.to_owned()));
            }
            match PARSERS.map(Path::new).into_iter().find(|path| path.exists()) {
                Some(parser) => load_default(parser).await.map(Some),
                None if is_asked_for => Err(EngineError::Unavailable(
                    "The default AppArmor profile can't be loaded: apparmor_parser (Debian's package apparmor) is \
                     missing."
                        .to_owned(),
                )),
                None => Ok(None),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    None,
    Default { is_asked_for: bool },
    Named(String),
}

fn choose(wanted: &AppArmorProfile, privileged: bool, enabled: bool) -> Result<Choice, EngineError> {
    match wanted {
        AppArmorProfile::Unconfined => Ok(Choice::None),
        AppArmorProfile::Unset if !enabled || privileged => Ok(Choice::None),
        AppArmorProfile::Unset => Ok(Choice::Default { is_asked_for: false }),
        AppArmorProfile::RuntimeDefault | AppArmorProfile::Localhost(_) if !enabled => {
            Err(EngineError::InvalidArgument(
                "The container asks for an AppArmor profile, and AppArmor is not enabled in this kernel."
                    .to_owned(),
            ))
        }
        AppArmorProfile::RuntimeDefault if privileged => Ok(Choice::None),
        AppArmorProfile::RuntimeDefault => Ok(Choice::Default { is_asked_for: true }),
        AppArmorProfile::Localhost(name) => Ok(Choice::Named(name.clone())),
    }
}

fn is_loaded(name: &str) -> Result<bool, EngineError> {
    let list = fs::read_to_string(LOADED_PROFILES).map_err(|error| {
        EngineError::Unavailable(format!(
            "The list of AppArmor profiles {LOADED_PROFILES} can't be read: {error}."
        ))
    })?;
    Ok(lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines()
        .filter_map(|line| line.rsplit_once(" ("))
        .any(|(loaded, _)| loaded == name)
}

async fn load_default(parser: &Path) -> Result<String, EngineError> {
    let load = async {
        let mut child = Command::new(parser)
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(DEFAULT_PROFILE_TEXT.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let failed = |why: String| {
        EngineError::Unavailable(format!("The default AppArmor profile can't be loaded: {why}."))
    };
    let output = load.await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{} said {:?}", parser.display(), said.trim())));
    }
    Ok(DEFAULT_PROFILE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_by_what_is_asked_for_and_what_the_kernel_has() {
        use AppArmorProfile::{Localhost, RuntimeDefault, Unconfined, Unset};
        let web = || Localhost("web".to_owned());
        let table = [
            (Unset, false, true, Some(Choice::Default { is_asked_for: false })),
            (Unset, true, true, Some(Choice::None)),
            (Unset, false, false, Some(Choice::None)),
            (Unconfined, false, true, Some(Choice::None)),
            (Unconfined, false, false, Some(Choice::None)),
            (
                RuntimeDefault,
                false,
                true,
                Some(Choice::Default { is_asked_for: true }),
            ),
            (RuntimeDefault, true, true, Some(Choice::None)),
            (RuntimeDefault, false, false, None),
            (web(), false, true, Some(Choice::Named("web".to_owned()))),
            (web(), true, true, Some(Choice::Named("web".to_owned()))),
            (web(), false, false, None),
        ];
        for (wanted, privileged, enabled, expected) in table {
            let found = choose(&wanted, privileged, enabled).ok();
            assert_eq!(found, expected, "{wanted:?} {privileged} {enabled}");
        }
    }

    #[test]
    fn the_kernels_list_is_read_by_whole_names() {
        let list = "/usr/bin/man (enforce)\nweb (complain)\nweb//child (enforce)\n";
        assert!(lists(list, "web") && lists(list, "/usr/bin/man"));
        assert!(!lists(list, "we") && !lists(list, "child") && !lists(list, "(enforce)"));
    }
}
