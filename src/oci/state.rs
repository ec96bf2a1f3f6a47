//! `state`: a container's state as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::ContainerState;
use berth_runtime::{Record, StateDir};
use serde::Serialize;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::options::Global;
use crate::output;
use crate::spec::VERSION;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "state",
    flags: &[],
    operands: (Operands::One, "ID"),
};

/// The runtime specification's state, with what runc adds to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) status: String,
    pub(crate) bundle: PathBuf,
    rootfs: PathBuf,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// Whose the state directory is; only `list` says.
    pub(crate) owner: String,
}

/// Prints the state, without waiting for commands that work on the container.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let directory = global.root.look(arguments.id()?)?;
    let record = directory.record()?;
    output::pretty_json(&state(&directory, record))?;
    Ok(ExitCode::SUCCESS)
}

/// What is known of a container.
pub(crate) fn state(directory: &StateDir, record: Record) -> State {
    let (status, process) = directory.status();
    let spec = directory.config().ok();
    let status = match status {
        ContainerState::Running if is_paused(&record.cgroup) => "paused".to_owned(),
        other => other.to_string(),
    };
    State {
        oci_version: spec
            .as_ref()
            .map_or_else(|| VERSION.to_owned(), |spec| spec.version.clone()),
        id: directory.id().to_owned(),
        pid: record
            .process
            .filter(|_| process.is_some())
            .map_or(0, |process| process.pid),
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: spec.map(|spec| spec.annotations).unwrap_or_default(),
        owner: String::new(),
    }
}

fn is_paused(cgroup: &str) -> bool {
    Cgroup::open(cgroup)
        .ok()
        .flatten()
        .is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false))
}
