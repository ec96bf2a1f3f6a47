//! What the engine tells of itself and, for people, of what it holds.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::cgroups::Place;
use super::{Container, Inner, Sandbox, checkpoint, conditions, features, handlers, lock, network};
use crate::engine::EngineError;
use crate::types::{CgroupDriver, RuntimeHandler, RuntimeStatus};

/// Whether pods can be run, and what they can have.
pub(super) async fn status(inner: &Inner, verbose: bool) -> Result<RuntimeStatus, EngineError> {
    let runtime = conditions::runtime(&inner.config);
    let network = conditions::network(inner.network.status(), conditions::PATIENCE).await;
    let mut info = BTreeMap::new();
    if verbose {
        let config = json!({
            "root": inner.config.lib_dir,
            "state": inner.config.run_dir,
            "runtime": inner.config.shim_program,
            "runtimeHandlers": inner.config.handlers,
            "defaultRuntimeHandler": inner.config.default_handler,
            "networkConfigDir": inner.config.network.conf_dir,
            "networkPluginDirs": inner.config.network.bin_dirs,
            "systemdCgroup": inner.config.cgroup_driver == CgroupDriver::Systemd,
            "containerLogMaxSize": inner.config.log_max_size,
            "containerLogMaxFiles": inner.config.log_max_files,
        });
        info.insert("config".to_owned(), config.to_string());
        let checkpoint = match checkpoint::usable().await {
            Ok(version) => json!({ "criu": version }),
            Err(error) => json!({ "unavailable": error.to_string() }),
        };
        info.insert("checkpoint".to_owned(), checkpoint.to_string());
        let advice = network::advice(inner).await;
        info.insert("networkAdvice".to_owned(), json!(advice).to_string());
        let skipped = network::skipped(inner).await;
        info.insert("networkSkipped".to_owned(), json!(skipped).to_string());
    }
    Ok(RuntimeStatus {
        conditions: vec![runtime, network],
        handlers: runtime_handlers(inner).await,
        supplemental_groups_policy: true,
        info,
    })
}

/// The runtime handlers, as they were found when they were first asked for.
pub(super) async fn runtime_handlers(inner: &Inner) -> Vec<RuntimeHandler> {
    handlers::list(inner, features::built_in(inner).await).await
}

/// A sandbox as `crictl inspectp` shows it.
pub(super) fn sandbox_info(inner: &Inner, sandbox: &Sandbox) -> BTreeMap<String, String> {
    let record = lock(&sandbox.record).clone();
    let pid = lock(&sandbox.shim).as_ref().and_then(|shim| shim.pause_pid);
    let program = record
        .handler
        .as_ref()
        .map_or(&inner.config.shim_program, |handler| &handler.config.program);
    let info = json!({
        "pid": pid.unwrap_or_default(),
        "processStatus": if pid.is_some() { "running" } else { "deleted" },
        "netNamespaceClosed": pid.is_none(),
        "image": "",
        "runtimeHandler": record.config.runtime_handler,
        "runtimeType": program,
        "runtimeOptions": record.handler.as_ref().map(|handler| &handler.config),
        "cgroupsPath": Place::of(&record, &sandbox.id.0).oci_path(),
        "config": record.config,
    });
    BTreeMap::from([("info".to_owned(), info.to_string())])
}

/// A container as `crictl inspect` shows it.
pub(super) fn container_info(sandbox: &Sandbox, container: &Container) -> BTreeMap<String, String> {
    let status = container.status(sandbox);
    let bundle = sandbox.dirs.bundle(&container.id).join("config.json");
    let spec: Option<Value> = fs::read(bundle)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let info = json!({
        "sandboxID": sandbox.id,
        "pid": status.pid,
        "removing": false,
        "config": status.config,
        "runtimeSpec": spec,
    });
    BTreeMap::from([("info".to_owned(), info.to_string())])
}
