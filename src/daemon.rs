//! `berth daemon`: what runs the pods of `berth run --detach`.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_images::Store;
use berth_kubelet::standalone::{self, OwnGroup};
use clap::Args;

use crate::builtin_image;
use crate::image_gc::{self, ImageGcArgs};
use crate::node_args::NodeArgs;
use crate::pods::{host, on_this_thread, places};
use crate::preflight;
use crate::root::Root;
use crate::rootless::Rootless;
use crate::service_manager;

/// How long a daemon may take to answer after it was started.
const START: Duration = Duration::from_secs(30);

/// Run the pods of `berth run --detach`, as a service does, until a signal ends it; the pods go on then
#[derive(Args, Debug)]
pub(crate) struct DaemonArgs {
    /// Go to the background: with a session, a control group and a log file of its own, until its last pod is gone
    #[arg(long, group = "handed_over")]
    background: bool,

    #[command(flatten)]
    node: NodeArgs,

    /// As `--background` starts it
    #[arg(long, hide = true)]
    on_demand: bool,

    #[command(flatten)]
    image_gc: ImageGcArgs,
}

/// Runs the daemon.
pub(crate) fn run(args: &DaemonArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    if args.background {
        return background(root, cgroup_root);
    }
    args.image_gc.check()?;
    preflight::check()?;
    let log = log(args.on_demand, root)?;
    // A service has one already, as has an ordinary user's node; and a daemon without one is as good while the session
    // lasts.
    let is_users = Rootless::here().is_some();
    let group = (args.on_demand && !is_users).then(|| OwnGroup::enter(&root.kubelet, cgroup_root));
    if let Some(Err(error)) = &group {
        log.say(&format!("no control group of its own: {error}"));
    }
    if group.is_none() && !is_users {
        OwnGroup::remove_left(&root.kubelet, cgroup_root);
    }
    let ended = serve(args, root, cgroup_root, log);
    drop(group);
    ended.map(|()| ExitCode::SUCCESS)
}

fn serve(args: &DaemonArgs, root: &Root, cgroup_root: &Path, log: Log) -> Result<(), String> {
    let log = Arc::new(log);
    on_this_thread(async {
        let options = args.node.engine();
        let engine = root.engine(&options).map_err(|error| error.to_string())?;
        builtin_image::import(engine.images())?;
        // Neither keeps pods from being tried.
        if let Err(error) = engine.reconcile_network().await {
            log.say(&error.to_string());
        }
        for advice in engine.network_advice().await {
            log.say(&advice);
        }
        let images = engine.images().clone();
        drop(engine);
        let host = args.node.applied(host(root, cgroup_root, &options)?);
        log.say("started");
        let gc = collect_images(
            images,
            args.image_gc.clone(),
            root.pinned_images(),
            Arc::clone(&log),
        );
        let of_service = Arc::clone(&log);
        let ready = move || {
            if let Err(error) = service_manager::ready() {
                of_service.say(&format!(
                    "the service manager can't be told that the daemon is ready: {error}"
                ));
            }
        };
        let say = move |text: &str| log.say(text);
        let pods = standalone::daemon(host, args.on_demand, say, ready);
        tokio::select! {
            ended = pods => ended.map_err(|error| error.to_string()),
            never = gc => match never {},
        }
    })?
}

/// Removes images that nobody uses, for ever; none if it can't be known which ones are to stay.
async fn collect_images(
    store: Store,
    args: ImageGcArgs,
    pinned: Result<Vec<String>, String>,
    log: Arc<Log>,
) -> Infallible {
    match pinned {
        Ok(pinned) => image_gc::run(store, args, pinned, move |text| log.say(text)).await,
        Err(error) => {
            log.say(&format!("no images are removed when the disk gets full: {error}"));
            std::future::pending().await
        }
    }
}

/// Starts the daemon in a session of its own, and returns when it answers. The process in between leads the session and
/// ends, so that the daemon can never get a terminal.
fn background(root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let places = places(root);
    if places.daemon().is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let failed = |error: std::io::Error| format!("The daemon can't be started: {error}.");
    // It fails in a process that leads a group already, which a shell may have made of this one; then it is done by one
    // that is started anew.
    if rustix::process::setsid().is_err() && std::env::var_os("BERTH_DAEMON_SESSION").is_none() {
        let mut again = Command::new(std::env::current_exe().map_err(failed)?);
        again
            .args(std::env::args_os().skip(1))
            .env("BERTH_DAEMON_SESSION", "1");
        let status = again.stdin(Stdio::null()).status().map_err(failed)?;
        return Ok(if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let path = log_file(root);
    let log = open_log(&path)?;
    let begin = log.metadata().map_err(failed)?.len();
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(directory) = root.given() {
        command.arg("--root").arg(directory);
    }
    let mut child = command
        .arg("--cgroup-root")
        .arg(cgroup_root)
        .args(["daemon", "--on-demand"])
        .current_dir("/")
        .env_remove("BERTH_DAEMON_SESSION")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + START;
    loop {
        if places.daemon().is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        // One that found another daemon ends well.
        let status = child.try_wait().map_err(failed)?;
        if status.is_some_and(|status| !status.success()) {
            return Err(said(&path, begin));
        }
        if Instant::now() > deadline {
            return Err(format!(
                "The daemon does not answer; its log is {}.",
                path.display()
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the daemon wrote last.
fn said(path: &Path, begin: u64) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(begin))?;
        file.read_to_string(&mut text)
    });
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().trim_start_matches("berth: ").to_owned(),
        _ => format!("It ended at once; its log is {}.", path.display()),
    }
}

fn log_file(root: &Root) -> PathBuf {
    root.pod_logs.with_file_name("daemon.log")
}

fn open_log(path: &Path) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("The log {} can't be opened: {error}.", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    File::options()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
        .map_err(failed)
}

/// The daemon's log: standard error, or a file that is begun anew when it has grown large.
struct Log(Option<Mutex<LogFile>>);

struct LogFile {
    path: PathBuf,
    file: File,
}

/// The log file may grow to this; the one before it is kept beside it.
const LOG_SIZE: u64 = 10 << 20;

fn log(on_demand: bool, root: &Root) -> Result<Log, String> {
    if !on_demand {
        return Ok(Log(None));
    }
    let path = log_file(root);
    let file = open_log(&path)?;
    Ok(Log(Some(Mutex::new(LogFile { path, file }))))
}

impl Log {
    fn say(&self, text: &str) {
        let Some(file) = &self.0 else {
            // Who reads it stamps it: systemd, or a person.
            eprintln!("{text}");
            return;
        };
        let mut log = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let line = format!("{} {text}\n", jiff::Timestamp::now());
        let full = log
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.len() > LOG_SIZE);
        let moved = full && std::fs::rename(&log.path, log.path.with_extension("log.1")).is_ok();
        if moved && let Ok(file) = open_log(&log.path) {
            log.file = file;
        }
        // A full disk must not end the pods.
        let _ = log.file.write_all(line.as_bytes());
    }
}
