//! JSON from outside: configurations, processes, resources, and states that a crash cut short.

use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;

use crate::cgroups::{self, CgroupPath};
use crate::check::{check_process, check_spec, root_propagation, sysctls};
use crate::identity::Identity;
use crate::listener::Agent;
use crate::memory_policy::MemoryPolicy;
use crate::mount;
use crate::namespaces::{JoinedNamespaces, Namespaces};
use crate::oci::{self, Decode, LinuxResources, LinuxSeccomp, Process, Spec, from_slice};
use crate::program::Program;
use crate::schedule::Schedule;
use crate::{Result, idmap, net_devices, seccomp, state};

/// Reads the bytes as all that it could be, and makes all checks that come before the kernel is asked for anything.
///
/// # Panics
/// When what was read is not what is written, or a refusal is not a sentence.
pub fn config_json(data: &[u8]) {
    if let Some(spec) = read::<Spec>(data) {
        is_a_sentence(check(&spec));
        if let Some(linux) = &spec.linux {
            // What one check refuses should not hide the others.
            is_a_sentence(idmap::check_maps(&linux.uid_mappings, &linux.gid_mappings));
            is_a_sentence(linux.resources.as_ref().map_or(Ok(()), check_resources));
            is_a_sentence(linux.seccomp.as_ref().map_or(Ok(()), check_seccomp));
            is_a_sentence(CgroupPath::new(&linux.cgroups_path).map(drop).map_err(Into::into));
        }
        is_a_sentence(spec.process.as_ref().map_or(Ok(()), check_one_process));
    }
    if let Some(process) = read::<Process>(data) {
        is_a_sentence(check_one_process(&process));
    }
    if let Some(resources) = read::<LinuxResources>(data) {
        is_a_sentence(check_resources(&resources));
    }
    if let Some(profile) = read::<LinuxSeccomp>(data) {
        is_a_sentence(check_seccomp(&profile));
    }
    state::decode(data);
}

/// Reads one; if that works, it is written and read again without a difference.
fn read<T: Decode + Serialize + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = from_slice(data).ok()?;
    let text = serde_json::to_vec(&value);
    let again = text.map(|text| from_slice::<T>(&text));
    assert!(again.is_ok_and(|again| again.as_ref() == Ok(&value)), "{value:?}");
    Some(value)
}

fn is_a_sentence(outcome: Result<()>) {
    if let Err(error) = outcome {
        let text = error.to_string();
        assert!(text.len() > 20 && text.ends_with('.'), "{text:?}");
    }
}

/// The checks of `create`.
fn check(spec: &Spec) -> Result<()> {
    let (linux, process) = check_spec(spec)?;
    process.map_or(Ok(()), check_one_process)?;
    // A namespace's path is opened, and a bind mount's source: that asks the kernel.
    let mut linux = linux.clone();
    linux
        .namespaces
        .retain(|namespace| namespace.path.as_os_str().is_empty());
    let namespaces = Namespaces::new(&linux, &JoinedNamespaces::default())?;
    net_devices::check(&linux, namespaces.has_network())?;
    sysctls(&linux, &namespaces)?;
    linux.memory_policy.as_ref().map(MemoryPolicy::new).transpose()?;
    let mut mounts = spec.mounts.clone();
    for mount in &mounts {
        mount::Options::parse(&mount.options)?;
    }
    mounts.retain(|mount| mount.typ != "bind" && !mount.options.iter().any(|o| o == "bind" || o == "rbind"));
    let origin = mount::Origin {
        bundle: Path::new("/bundle"),
        root: None,
        namespaces: &namespaces,
        label: &linux.mount_label,
        propagation: root_propagation(&linux)?,
        elsewhere: None,
    };
    mount::prepare(&mounts, &origin).map(drop)
}

fn check_one_process(process: &oci::Process) -> Result<()> {
    check_process(process)?;
    Identity::new(process)?;
    Schedule::new(process)?;
    Program::new(process).map(drop)
}

fn check_resources(resources: &LinuxResources) -> Result<()> {
    Ok(cgroups::check_devices(&resources.devices)?)
}

fn check_seccomp(profile: &LinuxSeccomp) -> Result<()> {
    let filter = seccomp::compile(profile)?;
    assert!(seccomp::reference::is_well_formed(filter.instructions()));
    Agent::of(profile, &filter, Path::new("/bundle")).map(drop)
}
