//! What several verbs share, and those of the runtime itself.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::link::ask;
use super::notes::POD_UID;
use super::{Inner, Result, lock, view};
use crate::engine::EngineError;
use crate::types::{CgroupDriver, RuntimeStatus, RuntimeVersion};
use crate::v1;

/// So many statuses are asked for at a time.
pub(super) const AT_ONCE: usize = 16;

/// The labels of a pod's sandboxes and containers.
pub(super) fn labelled(uid: &str) -> HashMap<String, String> {
    HashMap::from([(POD_UID.to_owned(), uid.to_owned())])
}

/// An answer that is none.
pub(super) fn lacking(who: &str, what: &str) -> EngineError {
    EngineError::Internal(format!("The answer of {who} lacks {what}."))
}

/// Those objects that have not gone since they were listed.
pub(super) fn there<T>(statuses: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    statuses
        .filter(|status| !matches!(status, Err(EngineError::NotFound(_))))
        .collect()
}

impl Inner {
    /// Waits until nobody else makes the same object.
    pub(super) async fn turn(&self, object: String) -> OwnedMutexGuard<()> {
        let turn = {
            let mut making = lock(&self.making);
            // Those that nobody makes any more.
            making.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(making.entry(object).or_default())
        };
        turn.lock_owned().await
    }

    pub(super) async fn version(&self) -> Result<RuntimeVersion> {
        let message = v1::VersionRequest {
            version: "0.1.0".to_owned(),
        };
        let reply = ask!(self.link, "Version", runtime.version(message)).await?;
        if reply.runtime_api_version != "v1" {
            return Err(EngineError::Unavailable(format!(
                "{} speaks version {:?} of CRI; v1 is needed.",
                self.link.who(),
                reply.runtime_api_version
            )));
        }
        Ok(RuntimeVersion {
            name: reply.runtime_name,
            version: reply.runtime_version,
        })
    }

    pub(super) async fn status(&self, verbose: bool) -> Result<RuntimeStatus> {
        let message = v1::StatusRequest { verbose };
        Ok(view::status(
            ask!(self.link, "Status", runtime.status(message)).await?,
        ))
    }

    pub(super) async fn cgroup_driver(&self) -> Result<CgroupDriver> {
        let message = v1::RuntimeConfigRequest {};
        let reply = ask!(self.link, "RuntimeConfig", runtime.runtime_config(message)).await?;
        let linux = reply
            .linux
            .ok_or_else(|| lacking(&self.link.who(), "its cgroup driver"))?;
        Ok(view::cgroup_driver(linux.cgroup_driver()))
    }

    pub(super) async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let message = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig {
                network_config: Some(v1::NetworkConfig {
                    pod_cidr: pod_cidr.to_owned(),
                }),
            }),
        };
        ask!(
            self.link,
            "UpdateRuntimeConfig",
            runtime.update_runtime_config(message)
        )
        .await
        .map(drop)
    }
}
