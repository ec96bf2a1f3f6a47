//! The control groups as a container sees them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstatfs, mkdirat, openat, statat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::attach::{Attached, attach, attach_one, attach_to, in_order, propagate, set_attributes};
use super::options::Options;
use super::source::{Prepared, Source, clone_tree};
use crate::error::Doing;
use crate::namespaces::Namespaces;
use crate::{Error, Result, mountinfo};

/// The inode of the machine's own cgroup namespace (`PROC_CGROUP_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFB;
/// The inode of a hierarchy's root; a mount of a part of it has another one.
const WHOLE: u64 = 1;

/// One line of `/proc/self/cgroup`: a hierarchy and this process's group in it.
struct Membership<'a> {
    /// The v1 controllers, `name=…` for a hierarchy without, or nothing for the unified one.
    controllers: &'a str,
    /// The group, from the root of the cgroup namespace.
    group: &'a str,
}

/// The process's groups as the host names them, if the spec wants to have them mounted: for a process that is in its own group
/// already, and not yet in a cgroup namespace of its own.
pub(crate) fn groups_outside(mounts: &[Prepared]) -> String {
    let wanted = mounts.iter().any(|mount| matches!(mount.source, Source::Cgroup));
    // In another namespace than the machine's own, the names say nothing of where the groups are in a whole hierarchy.
    let is_first = |namespace: Stat| namespace.st_ino == FIRST_NAMESPACE;
    if !wanted || !statat(CWD, c"/proc/self/ns/cgroup", AtFlags::empty()).is_ok_and(is_first) {
        return String::new();
    }
    // Without them, the hierarchies are mounted anew.
    std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// Mounts the control groups where the spec wants them, and what lies below them. The process must be in its own group
/// already, and in its cgroup namespace if it gets one.
pub(crate) fn attach_cgroups(
    root: impl AsFd,
    mounts: &[Prepared],
    namespaces: &Namespaces,
    outside: &str,
    attached: &mut Attached,
) -> Result<()> {
    for (mount, late) in in_order(mounts) {
        match mount.source {
            Source::Cgroup => show(&root, &mount.destination, &mount.options, outside, attached)?,
            _ if late => attach_one(&root, mount, namespaces, attached)?,
            _ => {}
        }
    }
    Ok(())
}

fn show(
    root: &impl AsFd,
    destination: &Path,
    options: &Options,
    outside: &str,
    attached: &mut Attached,
) -> Result<()> {
    if let Some(option) = options.data.first() {
        let field = format!("mounts[{}].options", destination.display());
        return Err(Error::invalid(
            field,
            format!("a cgroup mount takes no option {option:?}"),
        ));
    }
    let text = std::fs::read_to_string("/proc/self/cgroup").doing(|| "read /proc/self/cgroup".to_owned())?;
    mount_hierarchies(
        root,
        destination,
        options,
        (&parse(&text), &parse(outside)),
        attached,
    )
}

fn parse(text: &str) -> Vec<Membership<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            fields.next()?;
            Some(Membership {
                controllers: fields.next()?,
                group: fields.next()?,
            })
        })
        .collect()
}

fn mount_hierarchies(
    root: &impl AsFd,
    destination: &Path,
    options: &Options,
    (memberships, outside): (&[Membership<'_>], &[Membership<'_>]),
    attached: &mut Attached,
) -> Result<()> {
    if let [only] = memberships
        && only.controllers.is_empty()
    {
        let view = View::open(only, None)?;
        attach(&view.mount, root, destination)?;
        view.finish(only, options)?;
        return propagate(&view.mount, destination, options);
    }
    let holder = super::attach::make("tmpfs", Some("cgroup"), &holder_options(options), destination)?;
    attach(&holder, root, destination)?;
    // Where there is a unified hierarchy, the container has no group of its own in a named one: it would show the host's.
    let has_unified = memberships.iter().any(|m| m.controllers.is_empty());
    for membership in memberships
        .iter()
        .filter(|m| !(has_unified && m.controllers.starts_with("name=")))
    {
        let group = outside.iter().find(|m| m.controllers == membership.controllers);
        attach_hierarchy(&holder, membership, group, options)?;
    }
    propagate(&holder, destination, options)?;
    if (options.set | options.set_recursive) & libc::MOUNT_ATTR_RDONLY != 0 {
        attached.read_only_later.push(holder);
    }
    Ok(())
}

/// The directory of the hierarchies is written before it becomes read-only: other mounts may get their places in it.
fn holder_options(options: &Options) -> Options {
    let set = (options.set | options.set_recursive) & !libc::MOUNT_ATTR_RDONLY;
    Options {
        set,
        data: vec!["mode=755".to_owned()],
        ..Options::default()
    }
}

fn attach_hierarchy(
    holder: &OwnedFd,
    membership: &Membership<'_>,
    outside: Option<&Membership<'_>>,
    options: &Options,
) -> Result<()> {
    let name = match membership.controllers {
        "" => "unified",
        named => named.strip_prefix("name=").unwrap_or(named),
    };
    let doing = || format!("mount the {name} cgroup hierarchy");
    let view = View::open(membership, outside)?;
    mkdirat(holder, name, Mode::from_raw_mode(0o755)).doing(doing)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(holder, name, flags, Mode::empty()).doing(doing)?;
    attach_to(&view.mount, &place).doing(doing)?;
    view.finish(membership, options)?;
    if name.contains(',') {
        // Programs look for "cpu" where the hierarchy is "cpu,cpuacct".
        for controller in name.split(',') {
            symlinkat(name, holder, controller).doing(doing)?;
        }
    }
    Ok(())
}

fn open_hierarchy(membership: &Membership<'_>) -> Result<OwnedFd> {
    let doing = || format!("mount the cgroup hierarchy {:?}", membership.controllers);
    let kind = if membership.controllers.is_empty() {
        "cgroup2"
    } else {
        "cgroup"
    };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    fsconfig_set_string(&context, "source", "cgroup").doing(doing)?;
    if let Some(name) = membership.controllers.strip_prefix("name=") {
        fsconfig_set_flag(&context, "none").doing(doing)?;
        fsconfig_set_string(&context, "name", name).doing(doing)?;
    } else {
        for controller in membership.controllers.split(',').filter(|c| !c.is_empty()) {
            fsconfig_set_flag(&context, controller).doing(doing)?;
        }
    }
    fsconfig_create(&context).doing(doing)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(doing)
}

/// What a container is shown of a hierarchy.
struct View {
    mount: OwnedFd,
    /// Its root is the container's own group already.
    own: bool,
}

impl View {
    fn open(membership: &Membership<'_>, outside: Option<&Membership<'_>>) -> Result<View> {
        if let Some(mount) = outside.and_then(usual_view) {
            return Ok(View { mount, own: true });
        }
        match open_hierarchy(membership) {
            // A user namespace that shares the host's cgroup namespace may not mount the hierarchy.
            Err(Error::System { doing, source }) if source.raw_os_error() == Some(libc::EPERM) => {
                match hosts_view(membership).doing(|| doing.clone())? {
                    Some(mount) => Ok(View { mount, own: true }),
                    None => Err(Error::System { doing, source }),
                }
            }
            other => other.map(|mount| View { mount, own: false }),
        }
    }

    /// Applies the options, and without a cgroup namespace covers the hierarchy's root with the container's own group.
    fn finish(&self, membership: &Membership<'_>, options: &Options) -> Result<()> {
        let doing = || format!("show the cgroup {} to the container", membership.group);
        let own = membership.group.trim_start_matches('/');
        set_attributes(&self.mount, options).doing(doing)?;
        // In a cgroup namespace that was joined the group may lie outside of what can be seen.
        if self.own || own.is_empty() || own.starts_with("..") {
            return Ok(());
        }
        let tree = clone_tree(&self.mount, Path::new(own), false).doing(doing)?;
        attach_to(&tree, &self.mount).doing(doing)
    }
}

/// The container's own group of a v1 hierarchy, of the host's mount at its usual place; `None` where it is not there. Mounting
/// such a hierarchy once more, the kernel looks at each group of the unified one, and there are some for each pod.
fn usual_view(outside: &Membership<'_>) -> Option<OwnedFd> {
    let hierarchy = Path::new("/sys/fs/cgroup").join(outside.controllers);
    let is_whole = statat(CWD, &hierarchy, AtFlags::empty()).is_ok_and(|root| root.st_ino == WHOLE);
    let group = outside.group.strip_prefix('/')?;
    if outside.controllers.is_empty() || group.is_empty() || !is_whole {
        return None;
    }
    let mount = clone_tree(CWD, &hierarchy.join(group), false).ok()?;
    let kind = fstatfs(&mount).ok()?.f_type;
    (kind == libc::CGROUP_SUPER_MAGIC).then_some(mount)
}

/// The container's own group, of the host's mount of the hierarchy.
fn hosts_view(membership: &Membership<'_>) -> std::io::Result<Option<OwnedFd>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let controllers = membership.controllers.split(',').filter(|name| !name.is_empty());
    for line in mountinfo::parse(&text) {
        let same = match line.kind {
            "cgroup2" => membership.controllers.is_empty(),
            "cgroup" => {
                let mut has = |name| line.options.split(',').any(|option| option == name);
                !membership.controllers.is_empty() && controllers.clone().all(&mut has)
            }
            _ => false,
        };
        let below = Path::new(membership.group).strip_prefix(&line.root);
        if let (true, Ok(below)) = (same, below) {
            return Ok(Some(clone_tree(CWD, &Path::new(&line.point).join(below), false)?));
        }
    }
    Ok(None)
}
