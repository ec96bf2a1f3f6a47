//! What every test of the engine needs of a node: images, an engine's configuration, pods, and an end without leftovers.

use std::path::{Path, PathBuf};

use berth_cri::cgroups::Cgroup;
use berth_cri::{
    ContainerConfig, ContainerId, Engine, EngineConfig, HandlerConfig, LocalEngine, PodSandboxConfig,
    SandboxId,
};
use berth_images::build::{File, single_layer};
use berth_images::{Reference, Store};
use berth_tests::Node;
use oci_spec::image::ConfigBuilder;
use tokio::runtime::Runtime;

/// Puts an image into the node's store; without an entrypoint, it names no program.
pub(crate) fn add_image(node: &Node, name: &str, files: &[File], entrypoint: Option<&str>) {
    let store = Store::open(&node.root().join("images")).unwrap();
    let mut config = ConfigBuilder::default();
    if let Some(program) = entrypoint {
        config = config.entrypoint(vec![program.to_owned()]);
    }
    let config = config.build().unwrap();
    single_layer(&store, &name.parse::<Reference>().unwrap(), files, &config).unwrap();
}

/// An engine's configuration over the directories of `root`. All tests can be run on another OCI runtime than the built-in
/// one: `BERTH_TEST_RUNTIME` is its program.
pub(crate) fn engine_config(root: &Path) -> EngineConfig {
    let mut config = EngineConfig::new(
        root.join("lib"),
        root.join("run"),
        berth_tests::program("berth-oci"),
        berth_cni::CniConfig::new(root.join("net.d"), Vec::new(), root.join("cni")),
    );
    if let Some(program) = std::env::var_os("BERTH_TEST_RUNTIME") {
        let handler = HandlerConfig {
            container_annotations: vec!["*".into(), "*/*".into()],
            ..HandlerConfig::new(program.into())
        };
        config.handlers.insert("tested".into(), handler);
        config.default_handler = "tested".into();
    }
    config
}

/// An engine over the images of `root`, on a runtime of its own.
pub(crate) fn open(config: EngineConfig, root: &Path) -> (Runtime, LocalEngine) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let images = Store::open(&root.join("images")).unwrap();
    let engine = runtime
        .block_on(async { LocalEngine::open(config, images) })
        .unwrap();
    (runtime, engine)
}

/// A pod's sandbox, and the cgroup that a kubelet would have made for it.
pub(crate) fn pod(node: &Node, uid: &str) -> PodSandboxConfig {
    let cgroup_parent = relative(node.cgroup()).join(format!("pod{uid}"));
    Cgroup::create(&cgroup_parent.to_string_lossy()).unwrap();
    PodSandboxConfig {
        name: "test".into(),
        namespace: "default".into(),
        uid: uid.into(),
        hostname: "test".into(),
        log_directory: node.root().join("logs"),
        cgroup_parent,
        ..Default::default()
    }
}

/// A running container.
pub(crate) async fn started(
    engine: &LocalEngine,
    sandbox: &SandboxId,
    config: ContainerConfig,
) -> ContainerId {
    let id = engine.create_container(sandbox, config).await.unwrap();
    engine.start_container(&id).await.unwrap();
    id
}

/// Removes what a kubelet would, the engine's directories and those of the test, and looks for leftovers. The engine has
/// ended.
pub(crate) fn finish(node: Node, own: &[&str]) {
    if let Some(cgroup) = Cgroup::open(&relative(node.cgroup()).to_string_lossy()).unwrap() {
        cgroup.delete().unwrap();
    }
    for directory in ["lib/sandboxes", "run/sandboxes"] {
        let left = std::fs::read_dir(node.root().join(directory)).unwrap().count();
        assert_eq!(left, 0, "{directory} has something left");
    }
    for kept in ["lib", "run", "logs", "images", "cni"].iter().chain(own) {
        let _ = std::fs::remove_dir_all(node.root().join(kept));
    }
    node.finish();
}

fn relative(cgroup: &Path) -> PathBuf {
    cgroup.strip_prefix("/").unwrap().to_owned()
}
