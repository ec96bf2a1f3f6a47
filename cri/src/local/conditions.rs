//! Whether the engine can run pods, and give them a network, right now.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use berth_runtime::cgroups::{Controller, Hierarchies};
use nix::unistd::{AccessFlags, access};

use super::{EngineConfig, cgroups, handlers, network};
use crate::types::{CgroupDriver, RuntimeCondition};

/// A plugin that has not said by then whether it is ready isn't. The kubelet asks every five seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// `RuntimeReady`: what every pod needs is there.
pub(super) fn runtime(config: &EngineConfig) -> RuntimeCondition {
    condition("RuntimeReady", "RuntimeNotReady", problem(config))
}

/// `NetworkReady`: the network that the next pod would join can be joined. Without a configuration that is berth's own
/// default network, which needs nothing of the host; a configuration that can't be used has nothing to stand in for it.
pub(super) async fn network(
    status: impl Future<Output = Result<(), berth_cni::CniError>>,
    patience: Duration,
) -> RuntimeCondition {
    let problem = match tokio::time::timeout(patience, status).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(network::sentence(&error)),
        Err(_) => Some(format!(
            "The network's plugins did not say within {} seconds whether they are ready.",
            patience.as_secs()
        )),
    };
    condition("NetworkReady", "NetworkPluginNotReady", problem)
}

fn condition(kind: &str, reason: &str, problem: Option<String>) -> RuntimeCondition {
    RuntimeCondition {
        kind: kind.to_owned(),
        status: problem.is_none(),
        reason: problem.as_ref().map(|_| reason.to_owned()).unwrap_or_default(),
        message: problem.unwrap_or_default(),
    }
}

fn problem(config: &EngineConfig) -> Option<String> {
    usable(&config.shim_program, AccessFlags::X_OK, "executed")
        .or_else(|| usable(&config.lib_dir, AccessFlags::W_OK, "written to"))
        .or_else(|| usable(&config.run_dir, AccessFlags::W_OK, "written to"))
        .or_else(|| handlers::problem(config))
        .or_else(groups)
        .or_else(|| manager(config.cgroup_driver))
}

/// A path that every pod needs, if it can't be used. A file system that the kernel made read-only after an error fails
/// this for root, too.
fn usable(path: &Path, how: AccessFlags, verb: &str) -> Option<String> {
    let error = access(path, how).err()?;
    Some(format!("{} can't be {verb}: {}.", path.display(), error.desc()))
}

fn groups() -> Option<String> {
    let hierarchies = match Hierarchies::get() {
        Ok(hierarchies) => hierarchies,
        Err(error) => return Some(error.to_string()),
    };
    let missing = [Controller::Cpu, Controller::Memory, Controller::Pids]
        .into_iter()
        .find(|controller| !hierarchies.supports(*controller))?;
    Some(format!(
        "The host has no cgroup controller {}, which pods' limits need; mount its hierarchy or enable it at boot.",
        missing.v1_name()
    ))
}

fn manager(driver: CgroupDriver) -> Option<String> {
    let missing = driver == CgroupDriver::Systemd && !cgroups::systemd_runs();
    missing.then(|| {
        "The cgroup driver is systemd, and systemd does not run here; set cgroup_driver to \"auto\" or \"cgroupfs\"."
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(shim: PathBuf, root: &Path) -> EngineConfig {
        EngineConfig::new(
            root.to_owned(),
            root.to_owned(),
            shim,
            berth_cni::CniConfig::new(root.join("net.d"), Vec::new(), root.join("cni")),
        )
    }

    #[test]
    fn what_a_pod_needs_is_named() {
        let root = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let ready = runtime(&config(program.clone(), root.path()));
        assert_eq!((ready.status, &*ready.reason), (true, ""), "{ready:?}");
        for (shim, root) in [
            (PathBuf::from("/no/such/shim"), root.path()),
            (program, Path::new("/no/such/root")),
        ] {
            let missing = runtime(&config(shim, root));
            assert_eq!((missing.status, &*missing.reason), (false, "RuntimeNotReady"));
            assert!(missing.message.starts_with("/no/such/"), "{missing:?}");
        }
    }

    #[tokio::test]
    async fn the_network_says_why_not() {
        let ready = network(async { Ok(()) }, PATIENCE).await;
        assert_eq!((ready.status, &*ready.message), (true, ""));
        let error = berth_cni::CniError::NoNetwork {
            dir: "/etc/none".into(),
        };
        let missing = network(async { Err(error) }, PATIENCE).await;
        assert_eq!(
            (missing.status, &*missing.reason),
            (false, "NetworkPluginNotReady")
        );
        assert!(missing.message.contains("/etc/none"), "{missing:?}");
        let hung = network(std::future::pending(), Duration::ZERO).await;
        assert!(!hung.status && hung.message.contains("did not say"), "{hung:?}");
    }
}
