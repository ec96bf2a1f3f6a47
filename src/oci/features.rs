//! `features`: what the runtime can do, as the runtime specification's features document.

use berth_runtime::oci::{
    Arch, LinuxNamespaceType, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    MemoryPolicyFlagType, MemoryPolicyModeType,
};
use serde_json::json;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::criu;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::options::Global;
use crate::output;
use crate::spec::VERSION;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "features",
    flags: &[],
    operands: (Operands::None, ""),
};

/// Prints the document.
pub(crate) fn main(_: &Global, _: &Arguments) -> Result<ExitCode, Failure> {
    output::pretty_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": berth_runtime::mount_options(),
        "linux": {
            "namespaces": sorted(LinuxNamespaceType::NAMES),
            "capabilities": berth_runtime::capability_names(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": sorted(LinuxSeccompAction::NAMES),
                "operators": sorted(LinuxSeccompOperator::NAMES),
                "archs": sorted(Arch::NAMES),
                "knownFlags": sorted(LinuxSeccompFilterFlag::NAMES),
                "supportedFlags": berth_runtime::seccomp::supported_flags()
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": sorted(MemoryPolicyModeType::NAMES),
                "flags": sorted(MemoryPolicyFlagType::NAMES)
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true }
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": criu::is_installed().to_string(),
        },
        // Who can set these gets more than a container should give: a file that criu trusts, properties of the unit.
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."]
    }))?;
    Ok(ExitCode::SUCCESS)
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}
