//! `remount`: changing a mount that is there already.
//!
//! Only what is named changes. mount(8) takes everything away that is not named again, which for a mount that was made
//! `nosuid` a moment ago is never what is meant.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

use super::attach::{Attached, configure, set_attributes, set_propagation};
use super::options::Options;
use super::proc::mount_id;
use super::target::open_inside;
use crate::error::Doing;
use crate::{Error, Result};

/// Changes the mount on `target`.
pub(super) fn remount(
    root: impl AsFd,
    target: &Path,
    options: &Options,
    attached: &mut Attached,
) -> Result<()> {
    let doing = || format!("remount {}", target.display());
    let place = match open_inside(root, target) {
        Err(Errno::NOENT) => return Err(nothing_there(target)),
        other => other.doing(doing)?,
    };
    if !is_mount(&place).doing(doing)? {
        return Err(nothing_there(target));
    }
    if let Some(parameter) = options.data.first() {
        let own = mount_id(&place).is_some_and(|id| attached.made.iter().flatten().any(|made| *made == id));
        if !own || options.bind.is_some() {
            let what = format!(
                "The mount option {parameter:?} in a remount of {}",
                target.display()
            );
            let reason = "it would change a file system that is not the container's own";
            return Err(Error::unsupported(what, reason));
        }
        let context = fspick(
            &place,
            c"",
            FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH,
        );
        let context = context.doing(doing)?;
        configure(&context, &options.data, &doing)?;
        fsconfig_reconfigure(&context).doing(doing)?;
    }
    // Mounts and devices may still have to be made below.
    let later = options.set & libc::MOUNT_ATTR_RDONLY != 0;
    let now = Options {
        set: options.set & !libc::MOUNT_ATTR_RDONLY,
        ..options.clone()
    };
    set_attributes(&place, &now).doing(doing)?;
    for propagation in &options.propagation {
        set_propagation(&place, *propagation).doing(doing)?;
    }
    if later {
        attached.read_only_later.push(place);
    } else if options.clear & libc::MOUNT_ATTR_RDONLY != 0 {
        let id = mount_id(&place);
        attached.read_only_later.retain(|mount| mount_id(mount) != id);
    }
    Ok(())
}

fn nothing_there(target: &Path) -> Error {
    let field = format!("mounts[{}].options", target.display());
    Error::invalid(field, "there is no mount to \"remount\"")
}

/// Whether an open directory or file is what is mounted, and not something below it.
fn is_mount(place: &OwnedFd) -> rustix::io::Result<bool> {
    let status = statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
