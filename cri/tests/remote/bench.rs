//! A node with an engine on it, and that engine's socket with a client.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_cri::server::{Metrics, serve};
use berth_cri::{
    ContainerConfig, ContainerId, Engine, EngineConfig, EngineEventKind, EventStream, LocalEngine,
    PodSandboxConfig, RemoteEngine, SandboxId, StreamingConfig, StreamingServer,
};
use berth_images::build::File;
use berth_tests::Node;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::busybox;
use crate::node::{self, add_image, engine_config, open};

pub(crate) const IMAGE: &str = "test.local/busybox:latest";
pub(crate) const APPLETS: [&str; 14] = [
    "sh",
    "cat",
    "echo",
    "sleep",
    "stty",
    "head",
    "yes",
    "tee",
    "true",
    "false",
    "dd",
    "wc",
    "nc",
    "sha256sum",
];

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Which engine a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Remote,
}

/// Runs a test on both engines.
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {
        mod local {
            $(#[test]
            fn $name() {
                crate::bench::Bench::new().run(crate::bench::Kind::Local, super::$name);
            })*
        }
        mod remote {
            $(#[test]
            fn $name() {
                crate::bench::Bench::new().run(crate::bench::Kind::Remote, super::$name);
            })*
        }
    };
}
pub(crate) use on_both_engines;

pub(crate) struct Bench {
    node: Node,
    runtime: Runtime,
    engine: Arc<LocalEngine>,
}

/// What a test sees: an engine, and the node that it is on.
pub(crate) struct Place<'a> {
    pub(crate) node: &'a Node,
    pub(crate) engine: Arc<dyn Engine>,
}

impl Place<'_> {
    pub(crate) fn pod(&self, uid: &str) -> PodSandboxConfig {
        node::pod(self.node, uid)
    }

    /// A pod's sandbox.
    pub(crate) async fn sandbox(&self, uid: &str) -> SandboxId {
        self.engine.run_pod_sandbox(self.pod(uid)).await.unwrap()
    }

    /// A running container.
    pub(crate) async fn started(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        let id = self.engine.create_container(sandbox, config).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        id
    }
}

/// An engine's socket, until it is dropped: then every connection breaks.
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    serving: JoinHandle<()>,
}

impl Socket {
    pub(crate) async fn open(path: &Path, engine: Arc<dyn Engine>) -> Self {
        Self::streaming(path, engine, StreamingConfig::default()).await
    }

    pub(crate) async fn streaming(path: &Path, engine: Arc<dyn Engine>, config: StreamingConfig) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let streaming = StreamingServer::start(config, Arc::clone(&engine)).await.unwrap();
        let metrics = Arc::new(Metrics::default());
        let serving = tokio::spawn(async move {
            serve(engine, streaming, metrics, listener, pending())
                .await
                .unwrap();
        });
        Self {
            path: path.to_owned(),
            serving,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        add_image(&node, IMAGE, &busybox_files(), None);
        let config = EngineConfig {
            log_max_size: 1 << 20,
            log_max_files: 5,
            ..engine_config(node.root())
        };
        let (runtime, engine) = open(config, node.root());
        Self {
            node,
            runtime,
            engine: Arc::new(engine),
        }
    }

    pub(crate) fn run(self, kind: Kind, test: impl AsyncFnOnce(Place<'_>)) {
        self.with_socket(async |node, local, socket| {
            let engine: Arc<dyn Engine> = match kind {
                Kind::Local => local,
                Kind::Remote => Arc::new(RemoteEngine::connect(&socket.endpoint()).await.unwrap()),
            };
            test(Place { node, engine }).await;
        });
    }

    /// Runs a test beside an engine with its socket; afterwards every sandbox is removed.
    pub(crate) fn with_socket(self, test: impl AsyncFnOnce(&Node, Arc<LocalEngine>, Socket)) {
        let path = self.node.scratch().join("cri.sock");
        self.runtime.block_on(async {
            let socket = Socket::open(&path, self.engine.clone()).await;
            tokio::time::timeout(PATIENCE, test(&self.node, self.engine.clone(), socket))
                .await
                .expect("the test takes too long");
            for sandbox in self.engine.list_pod_sandboxes(None).await.unwrap() {
                self.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
            }
        });
        drop(self.engine);
        self.runtime.shutdown_timeout(PATIENCE);
        node::finish(self.node, &[]);
    }
}

fn busybox_files() -> Vec<File> {
    let mut files = busybox::files(&APPLETS);
    let helper = std::fs::read(berth_tests::program("berth-helper")).unwrap();
    files.push(File::regular("bin/helper", 0o755, helper));
    files
}

pub(crate) fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        image: IMAGE.into(),
        user_specified_image: IMAGE.into(),
        command: words(command),
        log_path: format!("{name}/0.log").into(),
        ..Default::default()
    }
}

/// Waits for an event, and returns those before it.
pub(crate) async fn until(events: &mut EventStream, wanted: &EngineEventKind) -> Vec<EngineEventKind> {
    let mut before = Vec::new();
    let found = async {
        while let Some(event) = events.recv().await {
            if event.kind == *wanted {
                return;
            }
            before.push(event.kind);
        }
        panic!("the engine ended before {wanted:?}");
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("{wanted:?} did not come"));
    before
}
