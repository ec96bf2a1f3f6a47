//! What another runtime's program has left where its shim was killed: its own state, which is removed in its own way
//! first, since it may name more than a directory.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use berth_shim::protocol::RUNTIME_DIR;
use tokio::process::Command;

use super::Handler;
use crate::engine::EngineError;
use crate::local::records;

/// How long a program may take to remove a container whose processes are gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes it. The pod's processes and cgroups are gone.
pub(in super::super) async fn remove(handler: &Handler, sandbox: &Path) -> Result<(), EngineError> {
    let root = sandbox.join(RUNTIME_DIR);
    let containers = fs::read_dir(&root).into_iter().flatten().flatten();
    for container in containers {
        let delete = Command::new(&handler.config.program)
            .args(&handler.config.args)
            .arg("--root")
            .arg(&root)
            .args(["delete", "--force"])
            .arg(container.file_name())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .status();
        match tokio::time::timeout(PATIENCE, delete).await {
            Ok(Ok(status)) if status.success() => {}
            // The directory goes all the same.
            _ => tracing::warn!(
                "The runtime handler {} could not remove what it knows of container {}.",
                handler.name,
                container.file_name().display()
            ),
        }
    }
    records::remove_tree(&root).map_err(|error| {
        EngineError::Internal(format!(
            "The state {} of a runtime can't be removed: {error}.",
            root.display()
        ))
    })
}
