//! `berth cri`: the engine behind a CRI socket, for a kubelet.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{Engine, LocalEngine, server};
use clap::Args;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::preflight;
use crate::root::{LogLimits, Root};

/// How long calls go on after the daemon was told to end.
const GRACE: Duration = Duration::from_secs(1);

/// Serve the container runtime interface (CRI v1) to a kubelet
#[derive(Args, Debug)]
pub(crate) struct CriArgs {
    /// The socket to listen on [default: /run/berth/cri.sock, or run/berth/cri.sock beneath --root]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Rotate a container's log when it would grow past this many bytes; 0 leaves that to the kubelet
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    log_max_size: u64,

    /// Keep this many log files of a container
    #[arg(long, value_name = "FILES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    log_max_files: u32,
}

/// Serves until SIGTERM or SIGINT. The containers go on without the daemon.
pub(crate) fn run(args: &CriArgs, root: &Root) -> Result<ExitCode, String> {
    preflight::check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("The kernel gives no event queue: {error}."))?;
    runtime.block_on(serve(args, root))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &CriArgs, root: &Root) -> Result<(), String> {
    let shutdown = shutdown().map_err(|error| format!("Signals can't be handled: {error}."))?;
    let socket = args.socket.clone().unwrap_or_else(|| root.run.join("cri.sock"));
    let listener = listen(&socket)
        .await
        .map_err(|error| format!("The socket {} can't be listened on: {error}.", socket.display()))?;
    let limits = LogLimits {
        max_size: args.log_max_size,
        max_files: args.log_max_files,
    };
    let engine = root.engine(limits).map_err(|error| error.to_string())?;
    take_over(&engine).await?;
    eprintln!("berth serves CRI v1 on {}.", socket.display());
    let (stop, stopped) = watch::channel(());
    let serving = server::serve(Arc::new(engine), listener, async move {
        shutdown.await;
        drop(stop);
    });
    let served = tokio::select! {
        served = serving => served,
        // Clients keep their connections, and calls may take minutes. What is cut off is finished or undone by the next
        // daemon, as after a kill.
        () = grace(stopped) => Ok(()),
    };
    let _ = std::fs::remove_file(&socket);
    served.map_err(|error| {
        format!(
            "The socket {} can't be served any more: {error}.",
            socket.display()
        )
    })
}

/// Adopts what a daemon before this one left running, before anybody can ask for it.
async fn take_over(engine: &LocalEngine) -> Result<(), String> {
    engine
        .list_pod_sandboxes(None)
        .await
        .map_err(|error| error.to_string())?;
    if let Err(error) = engine.reconcile_network().await {
        eprintln!("warning: {error}");
    }
    for advice in engine.network_advice().await {
        eprintln!("warning: {advice}");
    }
    Ok(())
}

/// A socket for root alone. One that nobody listens on any more is a dead daemon's and replaced.
async fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(socket).await.is_ok() {
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
