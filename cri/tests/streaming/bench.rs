//! A node with an engine and busybox containers on it.

use std::fs::File as OsFile;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{ContainerConfig, ContainerId, Engine, EngineConfig, LocalEngine, SandboxId};
use berth_images::build::File;
use berth_tests::Node;
use tokio::runtime::Runtime;

use crate::busybox;
use crate::node::{self, add_image, engine_config, open, started};

const IMAGE: &str = "test.local/busybox:latest";
const APPLETS: [&str; 12] = [
    "sh", "cat", "echo", "sleep", "stty", "head", "yes", "tee", "true", "dd", "wc", "setsid",
];

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    node: Node,
    runtime: Runtime,
    pub(crate) engine: Arc<LocalEngine>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        let helper = std::fs::read(berth_tests::program("berth-helper")).unwrap();
        let mut files = busybox::files(&APPLETS);
        files.push(File::regular("bin/helper", 0o755, helper));
        add_image(&node, IMAGE, &files, None);
        let config = EngineConfig {
            log_max_size: 1 << 20,
            log_max_files: 3,
            ..engine_config(node.root())
        };
        let (runtime, engine) = open(config, node.root());
        Self {
            node,
            runtime,
            engine: Arc::new(engine),
        }
    }

    /// Runs `work` with a pod's sandbox, and removes it afterwards.
    pub(crate) fn with_pod(self, work: impl AsyncFnOnce(&Arc<LocalEngine>, &SandboxId)) {
        let config = node::pod(&self.node, "uid");
        self.runtime.block_on(async {
            let sandbox = self.engine.run_pod_sandbox(config).await.unwrap();
            tokio::time::timeout(PATIENCE, work(&self.engine, &sandbox))
                .await
                .expect("the test takes too long");
            self.engine.remove_pod_sandbox(&sandbox).await.unwrap();
        });
        self.finish();
    }

    fn finish(self) {
        drop(self.engine);
        self.runtime.shutdown_timeout(PATIENCE);
        node::finish(self.node, &[]);
    }
}

pub(crate) fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn container(command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image: IMAGE.into(),
        command: words(command),
        log_path: "main/0.log".into(),
        ..Default::default()
    }
}

/// A container that does nothing.
pub(crate) async fn idle(engine: &LocalEngine, sandbox: &SandboxId) -> ContainerId {
    started(engine, sandbox, container(&["sleep", "1000"])).await
}

/// Reads to the end, on a thread of its own.
pub(crate) async fn read_to_end(fd: OwnedFd) -> Vec<u8> {
    let read = move || {
        let mut bytes = Vec::new();
        // The end of a terminal is an error.
        let _ = OsFile::from(fd).read_to_end(&mut bytes);
        bytes
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

pub(crate) async fn write(fd: &OwnedFd, bytes: &[u8]) {
    let (mut file, bytes) = (OsFile::from(fd.try_clone().unwrap()), bytes.to_vec());
    tokio::task::spawn_blocking(move || file.write_all(&bytes).unwrap())
        .await
        .unwrap();
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
