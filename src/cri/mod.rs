//! `berth cri`: the engine behind a CRI socket, for a kubelet.

mod config;
mod health;
mod log;
mod streaming;

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use berth_cni::PluginPreference;
use berth_cri::nri::{NriConfig, Timeouts};
use berth_cri::server::{self, Metrics};
use berth_cri::{Engine, LocalEngine, StreamingServer};
use berth_images::StoreOptions;
use clap::{Args, Subcommand};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::preflight;
use crate::root::{EngineOptions, Root};
use config::Config;

/// How long calls go on after the daemon was told to end.
const GRACE: Duration = Duration::from_secs(1);
/// How long after a failure to give back what is left of the network that is tried again.
const TIDY_AGAIN: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
];

/// How long the descriptors of a killed daemon may live on in what it was about to start.
const OLD_SOCKET: Duration = Duration::from_secs(2);

/// Serve the container runtime interface (CRI v1) to a kubelet
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct CriArgs {
    #[command(subcommand)]
    command: Option<Command>,

    /// The configuration file [default: /etc/berth/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The socket to listen on, in place of the configuration's
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print a configuration file with every default
    Default,
}

/// Names of images that the configuration keeps from garbage collection.
///
/// # Errors
/// The configuration can't be used.
pub(crate) fn pinned_images(root: &Path) -> Result<Vec<String>, String> {
    Config::load(None, root).map(|config| config.images.pinned)
}

/// Serves until SIGTERM or SIGINT. The containers go on without the daemon.
pub(crate) fn run(args: &CriArgs, root: &Root) -> Result<ExitCode, String> {
    if let Some(Command::Config(ConfigCommand::Default)) = args.command {
        print!("{}", config::DEFAULT);
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = Config::load(args.config.as_deref(), root.directory())?;
    if let Some(socket) = &args.socket {
        config.socket.clone_from(socket);
    }
    preflight::check()?;
    log::begin(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("The kernel gives no event queue: {error}."))?;
    runtime.block_on(serve(&config, root))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: &Config, root: &Root) -> Result<(), String> {
    let shutdown = shutdown().map_err(|error| format!("Signals can't be handled: {error}."))?;
    let socket = &config.socket;
    let listener = listen(socket)
        .await
        .map_err(|error| format!("The socket {} can't be listened on: {error}.", socket.display()))?;
    let engine = root.engine(&options(config)).map_err(|error| error.to_string())?;
    take_over(&engine).await?;
    for advice in engine.handler_advice() {
        tracing::warn!("{advice}");
    }
    serve_nri(&engine, &config.nri).await;
    let (engine, metrics) = (Arc::new(engine), Arc::new(Metrics::default()));
    let streaming = StreamingServer::start(config.streaming.config()?, engine.clone())
        .await
        .map_err(|error| error.to_string())?;
    if let Some(address) = config.metrics.address {
        let bound = health::listen(address, engine.clone(), Arc::clone(&metrics)).await?;
        tracing::info!("Metrics and health are served on http://{bound}.");
    }
    tracing::info!("CRI v1 is served on {}.", socket.display());
    let (stop, stopped) = watch::channel(());
    let serving = server::serve(engine.clone(), streaming, metrics, listener, async move {
        shutdown.await;
        drop(stop);
    });
    let served = tokio::select! {
        served = serving => served,
        // Clients keep their connections, and calls may take minutes. What is cut off is finished or undone by the next
        // daemon, as after a kill.
        () = grace(stopped) => Ok(()),
    };
    engine.shut_down_nri().await;
    let _ = std::fs::remove_file(socket);
    served.map_err(|error| {
        format!(
            "The socket {} can't be served any more: {error}.",
            socket.display()
        )
    })
}

fn options(config: &Config) -> EngineOptions {
    EngineOptions {
        log_max_size: config.container_log.max_size,
        log_max_files: config.container_log.max_files,
        cni_conf: Some(config.network.conf_dir.clone()),
        cni_bin: Some(config.network.bin_dirs.clone()),
        cni_preference: match config.network.plugins {
            config::Plugins::Executable => PluginPreference::Executable,
            config::Plugins::BuiltIn => PluginPreference::BuiltIn,
        },
        cni_timeout: Duration::from_secs(config.network.plugin_timeout),
        pinned_images: config.images.pinned.clone(),
        cgroup_driver: config.cgroup_driver.of_host(),
        cdi_spec_dirs: Some(config.devices.cdi_spec_dirs.clone()),
        handlers: config
            .runtimes
            .iter()
            .map(|(name, runtime)| (name.clone(), runtime.handler()))
            .collect(),
        default_handler: config.default_runtime.clone(),
        store: StoreOptions {
            parallel_layers: config.images.parallel_layers,
            progress_timeout: match config.images.pull_progress_timeout {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            registry_dir: Some(config.images.registry_dir.clone()),
            ..Default::default()
        },
    }
}

/// Adopts what a daemon before this one left running, before anybody can ask for it. What it left of the network is given
/// back beside that: a plugin may take its time, and calls are not to wait for it.
async fn take_over(engine: &LocalEngine) -> Result<(), String> {
    engine
        .list_pod_sandboxes(None)
        .await
        .map_err(|error| error.to_string())?;
    let engine = engine.clone();
    tokio::spawn(async move {
        for advice in engine.network_advice().await {
            tracing::warn!("{advice}");
        }
        tidy_network(&engine).await;
    });
    Ok(())
}

/// A plugin may fail, or be called off because a pod came in between; what is left is tried again later.
async fn tidy_network(engine: &LocalEngine) {
    let mut pauses = TIDY_AGAIN.into_iter();
    while let Err(error) = engine.reconcile_network().await {
        tracing::warn!("{error}");
        let Some(pause) = pauses.next() else { return };
        tokio::time::sleep(pause).await;
    }
}

/// Plugins are told of what was taken over first, and of everything from then on. Pods matter more than plugins: another
/// runtime on the machine may have the socket.
async fn serve_nri(engine: &LocalEngine, config: &config::Nri) {
    if !config.enabled {
        return;
    }
    let nri = NriConfig {
        socket: Some(config.socket.clone()),
        plugins: Some(config.plugin_dir.clone()),
        plugin_config: config.plugin_config_dir.clone(),
        timeouts: Timeouts {
            registration: Duration::from_millis(config.registration_timeout_ms),
            request: Duration::from_millis(config.request_timeout_ms),
        },
    };
    match engine.serve_nri(nri).await {
        Ok(()) => tracing::info!("NRI plugins are served on {}.", config.socket.display()),
        Err(error) => tracing::error!(
            "{error} NRI plugins are done without; the configuration's [nri] has another socket for them, or none."
        ),
    }
}

/// A socket for root alone. One that nobody listens on any more is a dead daemon's and replaced.
async fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => {
            if is_served(socket).await {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another program serves it; stop that one or choose another path with --socket",
                ));
            }
            std::fs::remove_file(socket)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Whether somebody listens. A process that a killed daemon was about to start has its descriptors until it executes its
/// program, so that one look is not enough.
async fn is_served(socket: &Path) -> bool {
    let begun = tokio::time::Instant::now();
    while UnixStream::connect(socket).await.is_ok() {
        if begun.elapsed() > OLD_SOCKET {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Some time for the calls that are under way when the daemon is told to end.
async fn grace(mut stopped: watch::Receiver<()>) {
    // The sender is dropped at the end.
    while stopped.changed().await.is_ok() {}
    tokio::time::sleep(GRACE).await;
}

fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
