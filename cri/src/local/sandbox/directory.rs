//! The shim's directory: what it is told, and the files that every container of the pod mounts.

use std::fs;

use berth_shim::protocol::{CONFIG_NAME, PauseIds, SandboxConfig};

use crate::engine::EngineError;
use crate::local::handlers::Handler;
use crate::local::{Sandbox, apparmor, lock, network, privileges, records, user_namespace, users};
use crate::types::{AppArmorProfile, PodSandboxConfig, SandboxSecurity, SeccompProfile};

/// The size of a pod's `/dev/shm`, as the field has it.
const SHM_SIZE: u64 = 64 << 20;
/// A pause is not for the OOM killer (upstream's value for sandboxes).
const PAUSE_OOM_SCORE_ADJ: i32 = -998;

/// The pause runs no program, opens no file, has no privilege, and may make no system call but those by which it waits:
/// whatever profile a pod asks for, the pause is confined by more. What is asked for has to be there all the same.
pub(super) async fn check_profiles(sandbox: &Sandbox) -> Result<(), EngineError> {
    let security = lock(&sandbox.record).config.security.clone();
    if let SeccompProfile::Localhost(path) = &security.seccomp {
        privileges::read_profile(path)?;
    }
    if security.apparmor != AppArmorProfile::Unset {
        apparmor::profile(&security.apparmor, false).await?;
    }
    Ok(())
}

fn pause_ids(security: &SandboxSecurity) -> Result<PauseIds, EngineError> {
    let id = |field: &str, id: Option<i64>| id.map(|id| users::to_id(field, id)).transpose();
    let groups = security.supplemental_groups.iter();
    Ok(PauseIds {
        uid: id("runAsUser", security.run_as_user)?,
        gid: id("runAsGroup", security.run_as_group)?,
        groups: groups
            .map(|group| users::to_id("supplementalGroups", *group))
            .collect::<Result<_, _>>()?,
    })
}

/// What `uname -n` says in the pod: on the host's network the host's name.
pub(in crate::local) fn shown_hostname(config: &PodSandboxConfig) -> String {
    if config.namespaces.host_network || config.hostname.is_empty() {
        host_name()
    } else {
        config.hostname.clone()
    }
}

pub(super) fn prepare(sandbox: &Sandbox) -> Result<(), EngineError> {
    let record = lock(&sandbox.record).clone();
    let config = &record.config;
    let namespaces = config.namespaces;
    let place = sandbox.place();
    let hostname = shown_hostname(config);
    let shim = SandboxConfig {
        id: record.id.0.clone(),
        cgroup: place.path,
        scope: place.scope,
        hostname: (!namespaces.host_network).then(|| hostname.clone()),
        network: !namespaces.host_network,
        ipc: !namespaces.host_ipc,
        shared_pid: namespaces.shared_pid,
        user: config.user_namespace.clone(),
        sysctls: config.sysctls.clone(),
        oom_score_adj: PAUSE_OOM_SCORE_ADJ,
        shm_size: SHM_SIZE,
        mount_label: record
            .selinux
            .as_ref()
            .map(|labels| labels.mount.clone())
            .unwrap_or_default(),
        pause: pause_ids(&config.security)?,
        runtime: record.handler.as_ref().map(Handler::program),
    };
    let run = &sandbox.dirs.run;
    let write = || {
        for directory in [berth_shim::protocol::BUNDLES_DIR, berth_shim::protocol::EXITS_DIR] {
            fs::create_dir_all(run.join(directory))?;
        }
        records::write_file(&run.join("hostname"), format!("{hostname}\n").as_bytes())?;
        records::write_file(&run.join("hosts"), &network::hosts()?)?;
        records::write_file(&run.join("resolv.conf"), network::resolv_conf(config)?.as_bytes())?;
        if let Some(user) = &config.user_namespace {
            // The pod's root may change what its containers' names resolve to, as it may without a user namespace.
            for file in ["hostname", "hosts", "resolv.conf"] {
                let (uid, gid) = (
                    user_namespace::on_host(&user.uids, 0),
                    user_namespace::on_host(&user.gids, 0),
                );
                std::os::unix::fs::chown(run.join(file), Some(uid), Some(gid))?;
            }
        }
        records::write(&run.join(CONFIG_NAME), &shim)
    };
    write().map_err(|error: std::io::Error| {
        EngineError::Unavailable(format!(
            "The sandbox's directory {} can't be made: {error}.",
            run.display()
        ))
    })
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
