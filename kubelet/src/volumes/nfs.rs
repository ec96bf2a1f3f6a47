//! `nfs`: an export of an NFS server, mounted in the pod's directory.
//!
//! What the kernel needs to be told beside the server's name (its address, the port that its mount service has) is found out
//! by mount.nfs(8), as everywhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::NFSVolumeSource;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Context, SettingUp, VolumeError, mounts};

const PLUGIN: &str = "kubernetes.io/nfs";
/// So much of what mount.nfs says of its failure is passed on.
const MAX_SAID: usize = 4096;
/// Where mount(8) looks for it.
const HELPERS: [&str; 2] = ["/sbin/mount.nfs", "/usr/sbin/mount.nfs"];

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, name: &str) -> PathBuf {
    context.dir.volume(PLUGIN, name)
}

/// Mounts the export, or finds it mounted.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &NFSVolumeSource,
    options: &[String],
    read_only: bool,
) -> Result<(), VolumeError> {
    let path = path(context, name);
    // Before anything looks at the path: if its server does not answer, that would wait for it.
    if is_mounted(context, &path).map_err(VolumeError::io("look for", &path))? {
        return Ok(());
    }
    std::fs::create_dir_all(&path).map_err(VolumeError::io("make the directory", &path))?;
    let helper = HELPERS.map(Path::new).into_iter().find(|helper| helper.exists());
    let Some(helper) = helper else {
        return Err(VolumeError::Unsupported(format!(
            "volume \"{name}\": mount.nfs is not installed, which mounts {}; it is in the package nfs-common or nfs-utils",
            export(source)
        )));
    };
    let read_only = read_only || source.read_only == Some(true);
    mount(context.setting_up, helper, source, options, read_only, &path).map_err(|error| {
        VolumeError::Unsupported(format!(
            "volume \"{name}\": can't mount {}: {error}",
            export(source)
        ))
    })
}

/// Whether the kernel's table of mounts says so.
fn is_mounted(context: &Context<'_>, path: &Path) -> io::Result<bool> {
    let dir = context.dir.path();
    let place = path.strip_prefix(dir).map_err(io::Error::other)?;
    mounts::is_listed(&dir.canonicalize()?.join(place))
}

/// `SERVER:PATH`; an IPv6 address stands in brackets.
fn export(source: &NFSVolumeSource) -> String {
    let server = source.server.trim_matches(['[', ']']);
    if server.contains(':') {
        format!("[{server}]:{}", source.path)
    } else {
        format!("{server}:{}", source.path)
    }
}

fn arguments(
    source: &NFSVolumeSource,
    options: &[String],
    read_only: bool,
    target: &Path,
) -> Vec<std::ffi::OsString> {
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    if read_only {
        all.push("ro");
    }
    let mut arguments = vec![export(source).into(), target.into()];
    if !all.is_empty() {
        arguments.extend(["-o".into(), all.join(",").into()]);
    }
    arguments
}

fn mount(
    setting_up: Option<&SettingUp>,
    helper: &Path,
    source: &NFSVolumeSource,
    options: &[String],
    read_only: bool,
    target: &Path,
) -> io::Result<()> {
    // Not a pipe: what it starts may hold the end of one for as long as it lives.
    let said = File::from(memfd_create("mount.nfs", MemfdFlags::CLOEXEC)?);
    let mut command = Command::new(helper);
    command
        .args(arguments(source, options, read_only, target))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.try_clone()?);
    let status = match setting_up {
        Some(setting_up) => setting_up.run(&mut command)?,
        None => Some(command.status()?),
    };
    let Some(status) = status else {
        return Err(io::Error::other(
            "mount.nfs was ended, as nobody wants the volume any more",
        ));
    };
    if status.success() {
        return Ok(());
    }
    let mut text = vec![0; MAX_SAID];
    let length = said.read_at(&mut text, 0)?;
    let said = String::from_utf8_lossy(&text[..length]);
    let said: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(io::Error::other(format!(
        "mount.nfs ended with {status}: {}",
        said.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn source(server: &str) -> NFSVolumeSource {
        NFSVolumeSource {
            server: server.to_owned(),
            path: "/exports/a".to_owned(),
            read_only: None,
        }
    }

    #[test]
    fn arguments_are_mount_nfs_s() {
        let target = Path::new("/pods/v");
        let words = |server: &str, options: &[&str], read_only| {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            let words = arguments(&source(server), &options, read_only, target);
            words.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(words("nas", &[], false), "nas:/exports/a /pods/v");
        assert_eq!(words("fd00::1", &[], true), "[fd00::1]:/exports/a /pods/v -o ro");
        assert_eq!(
            words("10.0.0.1", &["nfsvers=4.2", "soft"], true),
            "10.0.0.1:/exports/a /pods/v -o nfsvers=4.2,soft,ro"
        );
    }

    #[test]
    fn what_the_helper_says_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("mount.nfs");
        let script = "#!/bin/sh\ncase $1 in\ngood:*) exit 0;;\nesac\necho \"mount.nfs: Connection refused for $1\" >&2\nexit 32\n";
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        mount(None, &helper, &source("good"), &[], false, dir.path()).unwrap();
        let error = mount(None, &helper, &source("bad"), &[], false, dir.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("Connection refused for bad:/exports/a"),
            "{error}"
        );
    }
}
