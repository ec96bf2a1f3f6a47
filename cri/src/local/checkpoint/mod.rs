//! Checkpoints: a running container written to an archive, while it goes on.
//!
//! criu writes the processes, and holds them by ptrace(2) for as long as that takes. While they are still held the changed
//! files are packed, so that memory and files are of the same moment. Nothing is frozen, and nobody kills criu between two
//! of its steps: a caller whose time is over hears so at once, and criu is told at its next step that nobody wants the
//! result. The same happens when this daemon is killed.

mod archive;
mod criu;
mod describe;
mod dump;
mod interest;
pub(super) mod restore;

use std::fs::{self, DirBuilder, File};
use std::io::BufWriter;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Container, Inner, RunState, Sandbox, image, lock, now, records, user_namespace};
use crate::engine::EngineError;
use archive::{NotWritten, Parts};
use dump::{Dump, Places};
use interest::Interest;

pub(super) use criu::usable;

/// What is checkpointed, and by whom.
pub(super) struct Subject {
    pub(super) inner: Arc<Inner>,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) container: Arc<Container>,
}

impl Subject {
    fn name(&self) -> String {
        lock(&self.container.record).config.name.clone()
    }

    /// What another runtime has made it lets nobody else write down.
    fn check_runtime(&self) -> Result<(), EngineError> {
        let record = lock(&self.sandbox.record);
        if record.handler.is_none() {
            return Ok(());
        }
        Err(EngineError::Unimplemented(format!(
            "Container {} can't be checkpointed: it is of the runtime handler {}, and only berth's own can be.",
            self.name(),
            record.config.runtime_handler
        )))
    }

    fn pid(&self) -> Result<i32, EngineError> {
        match *self.container.run.borrow() {
            RunState::Running { pid } => Ok(pid),
            _ => Err(EngineError::FailedPrecondition(format!(
                "Container {} can't be checkpointed: it does not run.",
                self.name()
            ))),
        }
    }
}

/// Writes a checkpoint of a running container to the archive `location`. Without a timeout it takes as long as it takes.
pub(super) async fn write(subject: Subject, location: PathBuf, timeout: Duration) -> Result<(), EngineError> {
    let name = subject.name();
    let interest = Interest::new();
    let mut attempt = tokio::spawn(attempt(subject, location, interest.clone()));
    let over = async {
        if timeout.is_zero() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(timeout).await;
    };
    let abandoned = tokio::select! {
        biased;
        done = &mut attempt => return joined(done),
        () = over => interest.abandon(),
    };
    if !abandoned {
        return joined(attempt.await);
    }
    Err(EngineError::DeadlineExceeded(format!(
        "The checkpoint of container {name} was not complete within {} s; the container goes on.",
        timeout.as_secs_f64()
    )))
}

fn joined(done: Result<Result<(), EngineError>, tokio::task::JoinError>) -> Result<(), EngineError> {
    done.unwrap_or_else(|error| Err(EngineError::Internal(format!("The engine failed: {error}."))))
}

/// The whole of it. It ends when criu has, whether somebody still waits for it or not.
async fn attempt(subject: Subject, location: PathBuf, interest: Interest) -> Result<(), EngineError> {
    check_location(&location)?;
    subject.check_runtime()?;
    subject.pid()?;
    if let Some(handler) = &lock(&subject.sandbox.record).handler {
        // What another runtime has mounted and how is its own knowledge.
        return Err(EngineError::Unimplemented(format!(
            "Container {} can't be checkpointed: it is run by the runtime handler {}, and only berth's own can be.",
            subject.name(),
            handler.name
        )));
    }
    usable().await?;
    let _alone = Arc::clone(&subject.sandbox.checkpointing).lock_owned().await;
    if interest.is_lost() {
        return Ok(());
    }
    let directory = subject.sandbox.dirs.checkpoint(&subject.container.id);
    let work = Arc::new(Work::begin(directory).map_err(|error| no_room(&subject.name(), &error))?);
    let hidden = hold(&subject, &work, &interest).await?;
    blocking(move || pack(&subject, &work, hidden, &location, &interest)).await?
}

/// An archive is put where other programs of the host look for it.
fn check_location(location: &Path) -> Result<(), EngineError> {
    if location.is_absolute() && location.file_name().is_some() && !location.is_dir() {
        return Ok(());
    }
    Err(EngineError::InvalidArgument(format!(
        "The place for a checkpoint is {:?}, which is not the absolute path of a file.",
        location.display().to_string()
    )))
}

fn no_room(name: &str, error: &std::io::Error) -> EngineError {
    EngineError::Unavailable(format!(
        "The checkpoint of container {name} has no room: {error}."
    ))
}

/// Has criu write the processes, and packs the changed files before they go on. Returns the paths that are gone.
async fn hold(subject: &Subject, work: &Arc<Work>, interest: &Interest) -> Result<Vec<PathBuf>, EngineError> {
    let Subject {
        inner,
        sandbox,
        container,
    } = subject;
    let (name, pid) = (subject.name(), subject.pid()?);
    let failed = |why: &str| EngineError::Internal(format!("Container {name} can't be checkpointed: {why}"));
    let program = &inner.config.shim_program;
    let places = Places {
        program,
        bundle: &sandbox.dirs.bundle(&container.id),
        images: &work.images(),
        work: &work.directory,
    };
    let mut dump = Dump::start(&places, pid)
        .map_err(|error| failed(&format!("{} can't be run: {error}.", program.display())))?;
    let mut packed = Ok(Vec::new());
    let held = tokio::select! {
        held = dump.held() => held,
        () = interest.lost() => false,
    };
    if held {
        let upper = sandbox.dirs.container(&container.id).join("upper");
        let user = lock(&container.record).config.user_namespace.clone();
        let work = Arc::clone(work);
        let packing = blocking(move || {
            let owner = |uid, gid| match &user {
                None => (uid, gid),
                Some(user) => (
                    user_namespace::in_pod(&user.uids, uid),
                    user_namespace::in_pod(&user.gids, gid),
                ),
            };
            let to = BufWriter::with_capacity(1 << 17, File::create(work.rootfs_diff())?);
            berth_images::pack::layer(&upper, to, &owner)
        })
        .await;
        packed = packing.and_then(|packed| {
            packed.map_err(|error| failed(&format!("its changed files can't be read: {error}.")))
        });
    }
    if held && packed.is_ok() && !interest.is_lost() {
        dump.let_go().await;
    } else {
        dump.decline();
    }
    let ended = dump.end().await;
    let complaint = match &ended {
        Ok((status, _)) if status.success() => return packed,
        Ok((status, complaint)) if complaint.is_empty() => format!("berth-oci dump ended with {status}."),
        Ok((_, complaint)) => complaint.clone(),
        Err(error) => format!("berth-oci dump can't be waited for: {error}."),
    };
    // criu does that itself, unless something has killed it.
    unlock(inner, sandbox).await;
    packed.and_then(|_| Err(failed(&complaint)))
}

/// Lets a pod's packets pass that a killed criu kept back.
async fn unlock(inner: &Inner, sandbox: &Sandbox) {
    let pause = lock(&sandbox.shim).as_ref().and_then(|shim| shim.pause_pid);
    let own_network = !lock(&sandbox.record).config.namespaces.host_network;
    if let Some(pause) = pause.filter(|_| own_network) {
        dump::unlock_network(&inner.config.shim_program, pause).await;
    }
}

/// Puts the archive together.
fn pack(
    subject: &Subject,
    work: &Work,
    hidden: Vec<PathBuf>,
    location: &Path,
    interest: &Interest,
) -> Result<(), EngineError> {
    let Subject {
        inner,
        sandbox,
        container,
    } = subject;
    let status = container.status(sandbox);
    let name = &status.config.name;
    let image = image::status(&inner.images, &status.image_id.0, &[])?;
    let failed = |error: std::io::Error| {
        EngineError::Unavailable(format!(
            "The checkpoint of container {name} can't be written to {}: {error}.",
            location.display()
        ))
    };
    let spec: Option<Value> =
        records::read(&sandbox.dirs.bundle(&container.id).join("config.json")).map_err(failed)?;
    let hidden: Vec<String> = hidden.iter().map(|path| path.display().to_string()).collect();
    let parts = Parts {
        described: vec![
            (archive::CONFIG, describe::config(&status, image.as_ref(), now())),
            (archive::SPEC, spec.unwrap_or_default()),
            (archive::STATUS, describe::status(&status, image.as_ref())),
            (archive::DELETED_FILES, hidden.into()),
        ],
        files: vec![
            ("dump.log", work.directory.join("dump.log")),
            ("stats-dump", work.directory.join("stats-dump")),
            ("container.log", status.log_path.clone()),
            (archive::ROOTFS_DIFF, work.rootfs_diff()),
        ],
        images: &work.images(),
    };
    match archive::write(&parts, location, interest) {
        // Nobody hears of it.
        Err(NotWritten::Unwanted) => Ok(()),
        Err(NotWritten::Io(error)) => Err(failed(error)),
        Ok(()) => Ok(()),
    }
}

/// The directory in which a checkpoint is made. It goes when that is done; a killed daemon's goes with the next one.
struct Work {
    directory: PathBuf,
}

impl Work {
    fn begin(directory: PathBuf) -> std::io::Result<Self> {
        records::remove_tree(&directory)?;
        DirBuilder::new().mode(0o711).create(&directory)?;
        Ok(Self { directory })
    }

    fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    fn rootfs_diff(&self) -> PathBuf {
        self.directory.join(archive::ROOTFS_DIFF)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!("{} can't be removed: {error}.", self.directory.display());
        }
    }
}

/// Ends what a daemon that was killed had begun.
pub(super) async fn clean_up(inner: &Inner, sandbox: &Sandbox) {
    let begun: Vec<PathBuf> = sandbox
        .all_containers()
        .iter()
        .map(|container| sandbox.dirs.checkpoint(&container.id))
        .filter(|directory| directory.exists())
        .collect();
    if begun.is_empty() {
        return;
    }
    for directory in begun {
        drop(Work { directory });
    }
    unlock(inner, sandbox).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| EngineError::Internal(format!("The engine failed: {error}.")))
}
