//! A node with an engine that serves NRI plugins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri::cgroups::Cgroup;
use berth_cri::nri::{NriConfig, Timeouts};
use berth_cri::{
    ContainerConfig, ContainerId, Engine, EngineConfig, LocalEngine, PodSandboxConfig, SandboxId,
};
use berth_images::build::{File, single_layer};
use berth_images::{Reference, Store};
use berth_tests::Node;
use oci_spec::image::ConfigBuilder;
use tokio::runtime::Runtime;

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
        let store = Store::open(&node.root().join("images")).unwrap();
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let mut files = vec![
            File::regular("bin/busybox", 0o755, busybox),
            File::directory("tmp", 0o1777),
        ];
        files.extend(["sh", "cat", "sleep"].map(|applet| File::symlink(&format!("bin/{applet}"), "busybox")));
        let config = ConfigBuilder::default().build().unwrap();
        single_layer(&store, &IMAGE.parse::<Reference>().unwrap(), &files, &config).unwrap();
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
        let config = EngineConfig::new(
            root.join("lib"),
            root.join("run"),
            berth_tests::program("berth-oci"),
            berth_cni::CniConfig::new(root.join("net.d"), Vec::new(), root.join("cni")),
        );
        let nri = NriConfig {
            socket: Some(self.socket()),
            plugins: Some(root.join("plugins")),
            plugin_config: root.join("conf.d"),
            timeouts: self.timeouts,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let images = Store::open(&root.join("images")).unwrap();
        let engine = runtime.block_on(async {
            let engine = LocalEngine::open(config, images).unwrap();
            engine.list_pod_sandboxes(None).await.unwrap();
            engine.serve_nri(nri).await.unwrap();
            engine
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
        let cgroup_parent = relative(self.node.cgroup()).join(format!("pod{uid}"));
        Cgroup::create(&cgroup_parent.to_string_lossy()).unwrap();
        PodSandboxConfig {
            name: format!("name-{uid}"),
            namespace: "space".into(),
            uid: uid.into(),
            hostname: "test".into(),
            log_directory: self.root().join("logs"),
            labels: [("app".to_owned(), "test".to_owned())].into(),
            cgroup_parent,
            ..Default::default()
        }
    }

    /// Removes everything, and looks for leftovers.
    pub(crate) fn finish(mut self) {
        self.kill();
        if let Some(cgroup) = Cgroup::open(&relative(self.node.cgroup()).to_string_lossy()).unwrap() {
            cgroup.delete().unwrap();
        }
        for directory in ["lib/sandboxes", "run/sandboxes"] {
            let left = std::fs::read_dir(self.root().join(directory)).unwrap().count();
            assert_eq!(left, 0, "{directory} has something left");
        }
        for kept in ["lib", "run", "logs", "images", "cni", "plugins", "conf.d"] {
            let _ = std::fs::remove_dir_all(self.root().join(kept));
        }
        let _ = std::fs::remove_file(self.socket());
        self.node.finish();
    }
}

fn relative(cgroup: &Path) -> PathBuf {
    cgroup.strip_prefix("/").unwrap().to_owned()
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

pub(crate) async fn started(
    engine: &LocalEngine,
    sandbox: &SandboxId,
    config: ContainerConfig,
) -> ContainerId {
    let id = engine.create_container(sandbox, config).await.unwrap();
    engine.start_container(&id).await.unwrap();
    id
}

/// What a shell in a container prints.
pub(crate) async fn shell(engine: &LocalEngine, id: &ContainerId, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let output = engine.exec_sync(id, command, PATIENCE, 1 << 16).await.unwrap();
    assert_eq!(output.exit_code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
