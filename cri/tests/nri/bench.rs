//! A node with an engine that serves NRI plugins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri::nri::{NriConfig, Timeouts};
use berth_cri::{ContainerConfig, ContainerId, Engine, LocalEngine, PodSandboxConfig};
use berth_tests::Node;
use tokio::runtime::Runtime;

use crate::busybox;
use crate::node::{self, add_image, engine_config, open};

use super::plugin::{Calls, Plugin, PluginConfig};

const IMAGE: &str = "test.local/busybox:latest";

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    node: Node,
    running: Option<(Runtime, LocalEngine)>,
    pub(crate) timeouts: Timeouts,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Timeouts {
            registration: PATIENCE,
            request: PATIENCE,
        })
    }

    pub(crate) fn with(timeouts: Timeouts) -> Self {
        let node = Node::new();
        add_image(&node, IMAGE, &busybox::files(&["sh", "cat", "sleep"]), None);
        let mut bench = Self {
            node,
            running: None,
            timeouts,
        };
        bench.start();
        bench
    }

    pub(crate) fn root(&self) -> &Path {
        self.node.root()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root().join("nri.sock")
    }

    /// Starts an engine over what there is.
    pub(crate) fn start(&mut self) {
        let root = self.root().to_owned();
        let nri = NriConfig {
            socket: Some(self.socket()),
            plugins: Some(root.join("plugins")),
            plugin_config: root.join("conf.d"),
            timeouts: self.timeouts,
        };
        let mut config = engine_config(&root);
        config.cdi_spec_dirs = vec![root.join("cdi")];
        let (runtime, engine) = open(config, &root);
        runtime.block_on(async {
            engine.list_pod_sandboxes(None).await.unwrap();
            engine.serve_nri(nri).await.unwrap();
        });
        self.running = Some((runtime, engine));
    }

    /// Ends the engine without a word to anybody, as a kill would.
    pub(crate) fn kill(&mut self) {
        if let Some((runtime, engine)) = self.running.take() {
            drop(engine);
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(&LocalEngine) -> T) -> T {
        let (runtime, engine) = self.running.as_ref().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, work(engine))
                .await
                .expect("the test takes too long")
        })
    }

    /// Connects a plugin and waits until it is served.
    pub(crate) fn plugin(&self, config: PluginConfig) -> Calls {
        let plugin = Plugin::connect(&self.socket(), config);
        let calls = plugin.calls();
        self.run(async |_| calls.until("Synchronize", 1).await);
        calls
    }

    /// A pod, and the cgroup that a kubelet would have made for it.
    pub(crate) fn pod(&self, uid: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            name: format!("name-{uid}"),
            namespace: "space".into(),
            labels: [("app".to_owned(), "test".to_owned())].into(),
            ..node::pod(&self.node, uid)
        }
    }

    /// Removes everything, and looks for leftovers.
    pub(crate) fn finish(mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.socket());
        node::finish(self.node, &["plugins", "conf.d", "cdi"]);
    }
}

pub(crate) fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        image: IMAGE.into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}/0.log").into(),
        ..Default::default()
    }
}

/// A container that does nothing for long.
pub(crate) fn idle(name: &str) -> ContainerConfig {
    container(name, &["sleep", "1000"])
}

/// What a shell in a container prints.
pub(crate) async fn shell(engine: &LocalEngine, id: &ContainerId, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let output = engine.exec_sync(id, command, PATIENCE, 1 << 16).await.unwrap();
    assert_eq!(output.exit_code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
