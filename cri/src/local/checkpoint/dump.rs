//! `berth-oci dump`, which has criu write a container.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// What is kept of what it complains.
const MAX_COMPLAINT: u64 = 16 << 10;
/// What the checkpoint may contain: connections, locks and files that have no name any more are part of what a program is.
/// A container that has none of these is written the same way.
const OPTIONS: [&str; 5] = [
    "--leave-running",
    "--tcp-established",
    "--ext-unix-sk",
    "--file-locks",
    "--link-remap",
];

/// Where a dump's parts are.
pub(super) struct Places<'a> {
    pub(super) program: &'a Path,
    pub(super) bundle: &'a Path,
    pub(super) images: &'a Path,
    pub(super) work: &'a Path,
}

/// A running dump.
pub(super) struct Dump {
    child: Child,
    wanted: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    complaint: JoinHandle<Vec<u8>>,
}

impl Dump {
    pub(super) fn start(places: &Places<'_>, pid: i32) -> io::Result<Self> {
        let mut command = Command::new(places.program);
        command
            .arg("dump")
            .args(OPTIONS)
            .args([OsStr::new("--bundle"), places.bundle.as_os_str()])
            .args([OsStr::new("--image-path"), places.images.as_os_str()])
            .args([OsStr::new("--work-path"), places.work.as_os_str()])
            .arg(pid.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A signal to berth's group must not stop criu between two steps.
            .process_group(0);
        let mut child = command.spawn()?;
        let missing = || io::Error::other("it has no pipes");
        let said = child.stdout.take().ok_or_else(missing)?;
        let complains = child.stderr.take().ok_or_else(missing)?;
        Ok(Self {
            wanted: child.stdin.take(),
            said: BufReader::new(said),
            complaint: tokio::spawn(listen(complains)),
            child,
        })
    }

    /// Waits until everything is written and the container is still held. `false` when it has failed.
    pub(super) async fn held(&mut self) -> bool {
        let mut line = String::new();
        self.said.read_line(&mut line).await.is_ok() && line == "held\n"
    }

    /// Nobody wants the checkpoint any more: criu gives up as soon as it can do so without harm.
    pub(super) fn decline(&mut self) {
        self.wanted = None;
    }

    /// Lets the container go on.
    pub(super) async fn let_go(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            // If it has ended, its status says so.
            let _ = wanted.write_all(b"\n").await;
        }
    }

    /// Waits for its end, and criu's. Returns how it ended and what it complained.
    pub(super) async fn end(mut self) -> io::Result<(ExitStatus, String)> {
        let mut rest = Vec::new();
        self.said.read_to_end(&mut rest).await?;
        let status = self.child.wait().await?;
        let complaint = self.complaint.await.unwrap_or_default();
        let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
        Ok((status, complaint))
    }
}

/// Reads to the end, and keeps the beginning.
async fn listen(mut from: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = (&mut from).take(MAX_COMPLAINT).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    kept
}

/// Lets the packets of a pod's network pass again, which a criu that was killed has left locked. Harmless if it has not.
pub(super) async fn unlock_network(program: &Path, pause: i32) {
    let mut command = Command::new(program);
    command
        .args(["dump", "--unlock-network", &pause.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.status().await {
        Ok(status) if status.success() => {}
        Ok(status) => {
            tracing::warn!("The network of the pod with pause {pause} may still be locked ({status}).")
        }
        Err(error) => tracing::warn!("{} can't be run: {error}.", program.display()),
    }
}
