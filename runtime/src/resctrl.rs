//! `linux.intelRdt`: limits of caches and memory bandwidth, through groups of the resctrl file system.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Doing;
use crate::oci::{LinuxIntelRdt, Spec};
use crate::{Error, Result};

const FIELD: &str = "linux.intelRdt";

/// Checks what can be checked by looking.
pub(crate) fn check(rdt: &LinuxIntelRdt) -> Result<()> {
    let invalid = |field: &str, reason: &str| Err(Error::invalid(format!("{FIELD}.{field}"), reason));
    let reserved = matches!(
        rdt.clos_id.as_str(),
        "." | ".." | "info" | "mon_groups" | "mon_data"
    );
    if reserved || (rdt.clos_id.contains('/') && rdt.clos_id != "/") {
        return invalid(
            "closID",
            "it must be the name of a group, or \"/\" for the default one",
        );
    }
    if !rdt.mem_bw_schema.is_empty() && !rdt.mem_bw_schema.starts_with("MB:") {
        return invalid("memBwSchema", "it must begin with \"MB:\"");
    }
    if rdt.mem_bw_schema.contains('\n') {
        return invalid("memBwSchema", "it must be one line");
    }
    if rdt.l3_cache_schema.contains('\n') {
        return invalid("l3CacheSchema", "it must be one line");
    }
    if rdt.schemata.iter().any(|line| line.contains('\n')) {
        return invalid("schemata", "each must be one line");
    }
    Ok(())
}

/// Where a resctrl is mounted.
fn mounted() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").doing(|| "read the list of mounts".to_owned())?;
    find_mount(&text).ok_or_else(|| {
        Error::unsupported(
            FIELD,
            "no resctrl file system is mounted; where the processor has it: mount -t resctrl resctrl /sys/fs/resctrl",
        )
    })
}

fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if !kind.starts_with("resctrl ") {
            return None;
        }
        mount.split(' ').nth(4).map(PathBuf::from)
    })
}

/// The groups of one container; those that were made for it are removed again unless it comes to be.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The control group, and the monitoring group in it if there is one.
    assigned: Vec<PathBuf>,
    made: Vec<PathBuf>,
}

impl Groups {
    /// Makes or finds the groups of a container. `None`: the configuration has none.
    pub(crate) fn create(rdt: Option<&LinuxIntelRdt>, id: &str) -> Result<Option<Groups>> {
        rdt.map(|rdt| Groups::create_in(&mounted()?, rdt, id)).transpose()
    }

    fn create_in(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Groups> {
        let group = group_of(root, rdt, id);
        let mut groups = Groups {
            assigned: vec![group.clone()],
            made: Vec::new(),
        };
        let lines = lines(rdt);
        if rdt.clos_id.is_empty() || (!lines.is_empty() && !group.exists()) {
            groups.make(group.clone())?;
            write_schemata(&group, &lines)?;
        } else if !group.exists() {
            let reason = format!(
                "there is no group {}, and no schema to make one from",
                group.display()
            );
            return Err(Error::invalid(format!("{FIELD}.closID"), reason));
        } else {
            compare_schemata(&group, &lines)?;
        }
        if monitors(rdt) {
            let monitoring = group.join("mon_groups").join(id);
            groups.make(monitoring.clone())?;
            groups.assigned.push(monitoring);
        }
        Ok(groups)
    }

    fn make(&mut self, group: PathBuf) -> Result<()> {
        let doing = || format!("make the resctrl group {}", group.display());
        match fs::create_dir(&group) {
            // A group that an earlier container of that id left behind is no group of this one.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::invalid(
                    FIELD,
                    format!("there is a resctrl group {} already", group.display()),
                ));
            }
            other => other.doing(doing)?,
        }
        self.made.push(group);
        Ok(())
    }

    /// Puts a process, and with it what it starts, into the groups.
    pub(crate) fn assign(&self, pid: i32) -> Result<()> {
        assign(&self.assigned, pid)
    }

    /// Leaves the groups to the container.
    pub(crate) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in self.made.iter().rev() {
            // The error that led here matters more than what can't be cleaned up after it.
            let _ = fs::remove_dir(group);
        }
    }
}

fn assign(groups: &[PathBuf], pid: i32) -> Result<()> {
    groups.iter().try_for_each(|group| {
        fs::write(group.join("tasks"), pid.to_string())
            .doing(|| format!("move process {pid} into the resctrl group {}", group.display()))
    })
}

/// Puts a process that is added to a container into the container's groups.
pub(crate) fn assign_added(rdt: &LinuxIntelRdt, id: &str, pid: i32) -> Result<()> {
    let root = mounted()?;
    let group = group_of(&root, rdt, id);
    let monitoring = monitors(rdt).then(|| group.join("mon_groups").join(id));
    assign(
        &[Some(group), monitoring]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
        pid,
    )
}

/// Changes the limits of a container's resctrl group.
///
/// # Errors
/// When the container was created without one, or the kernel refuses.
pub fn update_resctrl_group(spec: &Spec, id: &str, lines: &[&str]) -> Result<()> {
    let rdt = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
    let rdt = rdt.ok_or_else(|| Error::invalid(FIELD, "the container was created without it"))?;
    write_schemata(&group_of(&mounted()?, rdt, id), lines)
}

/// Removes the resctrl groups that were made for a container that has ended.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_resctrl_groups(spec: &Spec, id: &str) -> Result<()> {
    match spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) {
        // What is not mounted any more has no groups.
        Some(rdt) => mounted().map_or(Ok(()), |root| remove_in(&root, rdt, id)),
        None => Ok(()),
    }
}

fn remove_in(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<()> {
    let group = group_of(root, rdt, id);
    let monitoring = monitors(rdt).then(|| group.join("mon_groups").join(id));
    // A group that was named is somebody else's too.
    let own = rdt.clos_id.is_empty().then_some(group);
    for group in monitoring.into_iter().chain(own) {
        match fs::remove_dir(&group) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.doing(|| format!("remove the resctrl group {}", group.display()))?,
        }
    }
    Ok(())
}

fn group_of(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> PathBuf {
    match rdt.clos_id.as_str() {
        "" => root.join(id),
        "/" => root.to_owned(),
        named => root.join(named),
    }
}

/// The two older fields asked for the same in a form that nothing ever implemented.
fn monitors(rdt: &LinuxIntelRdt) -> bool {
    rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm
}

/// What is to be written to `schemata`, in that order.
fn lines(rdt: &LinuxIntelRdt) -> Vec<&str> {
    [&rdt.l3_cache_schema, &rdt.mem_bw_schema]
        .into_iter()
        .chain(&rdt.schemata)
        .map(String::as_str)
        .filter(|line| !line.trim().is_empty())
        .collect()
}

fn write_schemata(group: &Path, lines: &[&str]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    // The file is the kernel's: it must not be made if it is missing.
    let file = fs::OpenOptions::new().write(true).open(group.join("schemata"));
    file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .doing(|| {
            format!(
                "write {text:?} to the schemata of the resctrl group {}",
                group.display()
            )
        })
}

fn compare_schemata(group: &Path, lines: &[&str]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = group.join("schemata");
    let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
    let has = |wanted: &str| {
        let (resource, wanted) = domains(wanted);
        text.lines()
            .map(domains)
            .filter(|(name, _)| *name == resource)
            .any(|(_, found)| {
                wanted
                    .iter()
                    .all(|(domain, value)| found.get(domain) == Some(value))
            })
    };
    match lines.iter().find(|line| !has(line)) {
        None => Ok(()),
        Some(line) => Err(Error::invalid(
            format!("{FIELD}.closID"),
            format!(
                "the group {} is there already and its schemata are not {line:?}",
                group.display()
            ),
        )),
    }
}

/// `L3:0=7f0;1=1f` as the resource and its values by domain, in one spelling.
fn domains(line: &str) -> (&str, BTreeMap<&str, String>) {
    let line = line.trim();
    let (resource, values) = line.split_once(':').unwrap_or((line, ""));
    let values = values.split(';').filter_map(|value| {
        let (domain, value) = value.split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((domain.trim(), value))
    });
    (resource, values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory tree in place of the kernel's, whose new groups have the files of resctrl.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            fs::create_dir(tree.0.path().join("mon_groups")).unwrap();
            fs::write(tree.0.path().join("schemata"), "    L3:0=fff;1=fff\n").unwrap();
            tree
        }

        fn group(&self, name: &str, schemata: &str) -> PathBuf {
            let group = self.0.path().join(name);
            fs::create_dir_all(group.join("mon_groups")).unwrap();
            fs::write(group.join("schemata"), schemata).unwrap();
            group
        }

        fn create(&self, json: &str) -> Result<Groups> {
            let rdt: LinuxIntelRdt = crate::oci::from_slice(json.as_bytes()).unwrap();
            check(&rdt)?;
            Groups::create_in(self.0.path(), &rdt, "c1")
        }
    }

    #[test]
    fn a_group_of_its_own_is_made_and_removed() {
        let tree = Tree::new();
        let rdt = LinuxIntelRdt::default();
        let groups = Groups::create_in(tree.0.path(), &rdt, "c1").unwrap();
        groups.assign(42).unwrap();
        assert_eq!(fs::read_to_string(tree.0.path().join("c1/tasks")).unwrap(), "42");
        groups.keep();
        // The kernel removes the files of a group with it.
        fs::remove_file(tree.0.path().join("c1/tasks")).unwrap();
        remove_in(tree.0.path(), &rdt, "c1").unwrap();
        assert!(!tree.0.path().join("c1").exists());
        remove_in(tree.0.path(), &rdt, "c1").unwrap();
        drop(Groups::create_in(tree.0.path(), &rdt, "c1").unwrap());
        assert!(!tree.0.path().join("c1").exists(), "a failure leaves nothing");
    }

    #[test]
    fn a_named_group_must_be_as_asked_for() {
        let tree = Tree::new();
        assert!(
            tree.create(r#"{"closID":"gold"}"#)
                .unwrap_err()
                .to_string()
                .contains("no group")
        );
        let group = tree.group("gold", "    MB:0=100;1= 70\n    L3:0=07f0;1=1f\n");
        for (json, fits) in [
            (r#"{"closID":"gold"}"#, true),
            (r#"{"closID":"gold","l3CacheSchema":"L3:0=7f0;1=1f"}"#, true),
            (
                r#"{"closID":"gold","l3CacheSchema":"L3:1=1F","memBwSchema":"MB:1=70"}"#,
                true,
            ),
            (r#"{"closID":"gold","schemata":["L3:0=7f0"]}"#, true),
            (r#"{"closID":"gold","l3CacheSchema":"L3:0=7ff"}"#, false),
            (r#"{"closID":"gold","schemata":["L2:0=f"]}"#, false),
            (r#"{"closID":"gold","memBwSchema":"MB:2=70"}"#, false),
        ] {
            assert_eq!(tree.create(json).is_ok(), fits, "{json}");
        }
        assert!(group.exists());
        assert_eq!(
            tree.create(r#"{"closID":"/"}"#).unwrap().assigned,
            [tree.0.path()]
        );
    }

    #[test]
    fn schemata_are_written_in_the_order_of_the_specification() {
        let tree = Tree::new();
        let group = tree.group("x", "");
        let rdt: LinuxIntelRdt = crate::oci::from_slice(
            br#"{"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f","schemata":["L2:0=1","MB:0=30"]}"#,
        )
        .unwrap();
        write_schemata(&group, &lines(&rdt)).unwrap();
        assert_eq!(
            fs::read_to_string(group.join("schemata")).unwrap(),
            "L3:0=f\nMB:0=20\nL2:0=1\nMB:0=30\n"
        );
    }

    #[test]
    fn monitoring_has_a_group_below() {
        let tree = Tree::new();
        let group = tree.group("gold", "");
        let groups = tree
            .create(r#"{"closID":"gold","enableMonitoring":true}"#)
            .unwrap();
        assert_eq!(groups.assigned, [group.clone(), group.join("mon_groups/c1")]);
        drop(groups);
        assert!(group.exists() && !group.join("mon_groups/c1").exists());
    }

    #[test]
    fn names_and_schemas_that_would_go_elsewhere_are_refused() {
        let tree = Tree::new();
        for json in [
            r#"{"closID":".."}"#,
            r#"{"closID":"a/b"}"#,
            r#"{"closID":"info"}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
            r#"{"memBwSchema":"MB:0=1\nL3:0=f"}"#,
            r#"{"l3CacheSchema":"L3:0=f\nMB:0=1"}"#,
            r#"{"schemata":["a\nb"]}"#,
        ] {
            assert!(tree.create(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_mount_is_found() {
        let text = "22 1 0:5 / /proc rw - proc proc rw\n40 1 0:35 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n";
        assert_eq!(find_mount(text), Some(PathBuf::from("/sys/fs/resctrl")));
        assert_eq!(find_mount("22 1 0:5 / /proc rw - proc proc rw\n"), None);
    }
}
