//! Claims with `volumeMode: Block`, and `volumeDevices`: a block device of the host that appears in containers as a device.
//!
//! The device is looked at once, through a descriptor, and that very node is bound to a place in the pod's directory, as
//! upstream has it. Containers are given what is there: where the PersistentVolume's path leads meanwhile changes nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_cri::Device;
use k8s_openapi::api::core::v1::{LocalVolumeSource, Volume};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{Context, VolumeError, claim, local, mounts};
use crate::plan::StartContainer;

const PLUGIN: &str = "kubernetes.io/local-volume";

/// Where the device is bound.
fn path(context: &Context<'_>, name: &str) -> PathBuf {
    context.dir.volume_device(PLUGIN, name)
}

/// Binds the device of a local volume, or finds it bound. One that has another number now, as after it was plugged in
/// again, is bound anew.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &LocalVolumeSource,
) -> Result<(), VolumeError> {
    let host = local::path(source);
    let device = open(&host).map_err(VolumeError::io("look at", &host))?;
    local::check_kind(source, &device, true)?;
    let target = path(context, name);
    bind(&device, &target).map_err(VolumeError::io("bind the block device to", &target))
}

/// Looks at what is there, without opening the device itself. Links are followed: `/dev/disk/by-id` has nothing else.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn bind(device: &OwnedFd, target: &Path) -> io::Result<()> {
    if mounts::is_mount_point(target)? {
        let wanted = rustix::fs::statat(device, "", AtFlags::EMPTY_PATH)?;
        if rustix::fs::lstat(target)?.st_rdev == wanted.st_rdev {
            return Ok(());
        }
        mounts::unmount_below(&target.canonicalize()?)?;
    }
    if let Some(parent) = target.parent() {
        super::make_private_dirs(parent)?;
    }
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target)?;
    mounts::bind_descriptor(device.as_fd(), target)
}

/// The devices of a container that is about to start. As upstream: all rights, or those to read alone where the pod has the
/// claim read-only.
pub fn container_devices(context: &Context<'_>, start: &StartContainer) -> Result<Vec<Device>, VolumeError> {
    let device = |request: &crate::plan::VolumeDeviceRequest| {
        let name = request.volume.as_str();
        let volume = context.volumes().iter().find(|volume| volume.name == name);
        let volume =
            volume.ok_or_else(|| VolumeError::Unsupported(format!("the pod has no volume \"{name}\"")))?;
        check_mode(context, volume)?;
        let permissions = if claim::is_read_only(volume) { "r" } else { "mrw" };
        Ok(Device {
            container_path: request.container_path.clone(),
            host_path: path(context, name),
            permissions: permissions.to_owned(),
        })
    };
    start.volume_devices.iter().map(device).collect()
}

fn check_mode(context: &Context<'_>, volume: &Volume) -> Result<(), VolumeError> {
    if claim::find(context, volume)?.is_block() {
        return Ok(());
    }
    Err(VolumeError::Unsupported(format!(
        "volume {} has volumeMode Filesystem, but is specified in volumeDevices",
        volume.name
    )))
}
