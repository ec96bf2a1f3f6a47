//! Scripts of many attachments in one run of `nft`.
//!
//! `nft` takes milliseconds to begin, and hardly longer for ten scripts than for one. It works for this process once at a
//! time; what came in the meantime is done by the next run. One that is refused is not found out from its company: each is tried
//! alone then.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::result::PluginError;

/// Where scripts are for: only those for the same place are done together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    script: PathBuf,
    table: String,
    /// The calling thread's network namespace, if it can be told.
    namespace: Option<(u64, u64)>,
}

impl Place {
    pub(super) fn new(script: &Path, table: &str) -> Place {
        let namespace = fs::metadata("/proc/thread-self/ns/net").ok();
        Place {
            script: script.to_owned(),
            table: table.to_owned(),
            namespace: namespace.map(|of| (of.dev(), of.ino())),
        }
    }
}

/// What `nft` is to do for one attachment.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Whether the table has to be there first.
    pub(super) needed: bool,
    pub(super) text: String,
}

/// A script in the queue, and what became of it.
struct Job {
    script: Script,
    done: Mutex<Option<Result<(), PluginError>>>,
}

impl Job {
    fn finish(&self, result: Result<(), PluginError>) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    fn result(&self) -> Option<Result<(), PluginError>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Queue = HashMap<Place, Vec<Arc<Job>>>;

fn queue() -> MutexGuard<'static, Queue> {
    static QUEUE: OnceLock<Mutex<Queue>> = OnceLock::new();
    let queue = QUEUE.get_or_init(Mutex::default);
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while `nft` works on a table, so that it works for this process once at a time. Those who wait for their turn here sleep;
/// at the script's file, which is for what killed processes left behind, they would look again and again, hundreds of them when as
/// many pods come at once.
pub(super) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a script done, with those that wait for the same place, by `run`, which does all that it is given or nothing.
pub(super) fn apply(
    place: &Place,
    script: Script,
    run: impl Fn(&[Script]) -> Result<(), PluginError>,
) -> Result<(), PluginError> {
    let own = Arc::new(Job {
        script,
        done: Mutex::default(),
    });
    queue().entry(place.clone()).or_default().push(Arc::clone(&own));
    let _turn = turn();
    if let Some(result) = own.result() {
        return result;
    }
    let mut jobs = queue().remove(place).unwrap_or_default();
    // Nobody has done it, so that it is in the queue, unless who took it out has died.
    if !jobs.iter().any(|job| Arc::ptr_eq(job, &own)) {
        jobs.push(Arc::clone(&own));
    }
    let scripts: Vec<Script> = jobs.iter().map(|job| job.script.clone()).collect();
    match run(&scripts) {
        Err(error) if jobs.len() < 2 => return Err(error),
        Err(_) => jobs
            .iter()
            .for_each(|job| job.finish(run(std::slice::from_ref(&job.script)))),
        Ok(()) => jobs.iter().for_each(|job| job.finish(Ok(()))),
    }
    own.result().unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::result::code;

    fn place(table: &str) -> Place {
        Place::new(Path::new("/a-script-of-this-test"), table)
    }

    fn script(text: &str) -> Script {
        Script {
            needed: false,
            text: text.to_owned(),
        }
    }

    fn waiting(place: &Place) -> usize {
        queue().get(place).map_or(0, Vec::len)
    }

    /// Has scripts done that all wait while `nft` is busy. Returns what was run, and what each was told.
    fn together(table: &str, texts: &[&str]) -> (Vec<Vec<String>>, Vec<bool>) {
        let (place, runs) = (place(table), Mutex::new(Vec::new()));
        let run = |scripts: &[Script]| {
            let texts: Vec<String> = scripts.iter().map(|s| s.text.clone()).collect();
            let refused = texts.iter().any(|text| text == "bad");
            runs.lock().unwrap().push(texts);
            match refused {
                true => Err(PluginError::new(code::KERNEL, "no".to_owned())),
                false => Ok(()),
            }
        };
        let busy = turn();
        let told = std::thread::scope(|scope| {
            let threads: Vec<_> = texts
                .iter()
                .map(|text| scope.spawn(|| apply(&place, script(text), run).is_ok()))
                .collect();
            while waiting(&place) < texts.len() {
                std::thread::yield_now();
            }
            drop(busy);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(waiting(&place), 0);
        (runs.into_inner().unwrap(), told)
    }

    #[test]
    fn what_waits_is_done_by_one_run() {
        let (mut runs, told) = together("one", &["a", "b", "c"]);
        runs.iter_mut().for_each(|run| run.sort());
        assert_eq!(runs, [["a", "b", "c"]]);
        assert_eq!(told, [true; 3]);
    }

    #[test]
    fn a_refused_one_is_refused_alone() {
        let (runs, told) = together("two", &["a", "bad", "c"]);
        assert_eq!(told, [true, false, true]);
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 1, 1]);
    }

    #[test]
    fn places_are_kept_apart() {
        let count = AtomicUsize::new(0);
        let run = |scripts: &[Script]| {
            count.fetch_add(scripts.len(), Ordering::Relaxed);
            Ok(())
        };
        let (here, there) = (place("three"), place("four"));
        let other = Arc::new(Job {
            script: script("x"),
            done: Mutex::default(),
        });
        queue().entry(there.clone()).or_default().push(other);
        apply(&here, script("a"), run).unwrap();
        assert_eq!((count.load(Ordering::Relaxed), waiting(&there)), (1, 1));
        queue().remove(&there);
    }
}
