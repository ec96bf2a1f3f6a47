//! What the groups above pods depend on, kept on disk: which of them are ours, and what each pod requests of the CPU.
//!
//! Several programs may share a node. The list is a file of lines, each a change; a change is appended under a lock, so that it
//! costs the same whatever the number of pods, and each program reads what others have appended since it looked last. When most
//! lines say what is no longer so, the file is written anew with what is, and renamed into its place.
//!
//! No group outlives the machine: the first line says in which boot the list began, and that of another one is none.
//!
//! A program may be killed at any moment. A line counts once it has its newline; what is left of one that was never ended is
//! cut off by who appends next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::cgroup::parents;
use crate::volumes::make_private_dirs;

/// The list's name in the kubelet's directory.
const NAME: &str = "cgroups.journal";
/// The kernel's name for the time since the machine was started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A first line is shorter.
const LONGEST_FIRST: u64 = 4096;
/// It is not written anew while it has no more lines than that.
const FEW: usize = 64;
/// It is written anew when it has so many lines for each that still counts.
const WASTE: usize = 4;

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Change {
    /// A file begins: in which boot, and which one of those that were begun in it.
    Begin(String, String),
    /// A group above pods is about to be made by us.
    Ours(PathBuf),
    /// It is gone.
    NotOurs(PathBuf),
    /// A pod, by its group, requests so many thousandths of a CPU.
    Requests(PathBuf, i64),
    /// The pod's group is gone.
    Gone(PathBuf),
}

/// All changes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    ours: BTreeSet<PathBuf>,
    requests: BTreeMap<PathBuf, i64>,
    /// What the pods in each group above them request together.
    sums: BTreeMap<PathBuf, i64>,
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Begin(..) => {}
            Change::Ours(group) => drop(self.ours.insert(group)),
            Change::NotOurs(group) => drop(self.ours.remove(&group)),
            Change::Requests(pod, milli_cpu) => {
                let before = self.requests.insert(pod.clone(), milli_cpu);
                self.add(&pod, milli_cpu.saturating_sub(before.unwrap_or(0)));
            }
            Change::Gone(pod) => {
                if let Some(milli_cpu) = self.requests.remove(&pod) {
                    self.add(&pod, milli_cpu.saturating_neg());
                }
            }
        }
    }

    fn add(&mut self, pod: &Path, milli_cpu: i64) {
        for group in parents(pod) {
            let sum = self.sums.entry(group.to_owned()).or_default();
            *sum = sum.saturating_add(milli_cpu);
            if *sum == 0 {
                self.sums.remove(group);
            }
        }
    }

    fn changes(&self) -> impl Iterator<Item = Change> {
        let ours = self.ours.iter().cloned().map(Change::Ours);
        let requests = self.requests.iter();
        ours.chain(requests.map(|(pod, milli_cpu)| Change::Requests(pod.clone(), *milli_cpu)))
    }

    fn len(&self) -> usize {
        self.ours.len() + self.requests.len()
    }
}

/// What this program has read of the file.
#[derive(Debug, Default)]
struct Known {
    /// The file's first line, with its newline: each file that was ever made begins otherwise.
    first: Vec<u8>,
    /// Up to the end of a line.
    length: u64,
    lines: usize,
    state: State,
}

/// The list of a node.
#[derive(Clone, Debug)]
pub(super) struct List {
    directory: PathBuf,
    known: Arc<Mutex<Known>>,
}

impl List {
    /// The list in the kubelet's directory. Nothing is there before it is needed.
    pub(super) fn new(directory: &Path) -> Self {
        List {
            directory: directory.to_owned(),
            known: Arc::default(),
        }
    }

    /// The list as it is, which nobody else changes meanwhile.
    pub(super) fn lock(&self) -> io::Result<Locked<'_>> {
        make_private_dirs(&self.directory)?;
        // The directory itself is locked: a lock file could not be removed without a race.
        let file = File::open(&self.directory)?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
        let mut locked = Locked {
            path: self.directory.join(NAME),
            _lock: lock,
            known: self.known.lock().unwrap_or_else(PoisonError::into_inner),
        };
        locked.read()?;
        Ok(locked)
    }
}

/// The list while it is ours to change.
pub(super) struct Locked<'a> {
    path: PathBuf,
    _lock: Flock<File>,
    known: MutexGuard<'a, Known>,
}

impl Locked<'_> {
    /// Whether a group above pods was made by berth.
    pub(super) fn is_ours(&self, group: &Path) -> bool {
        self.known.state.ours.contains(group)
    }

    /// Thousandths of a CPU that all pods below a group request.
    pub(super) fn requested_in(&self, group: &Path) -> i64 {
        self.known.state.sums.get(group).copied().unwrap_or(0)
    }

    /// Writes changes down; when it fails, some of them may have been.
    pub(super) fn note(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let new: Vec<Change> = changes.into_iter().filter(|change| self.is_new(change)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        if self.known.length == 0 {
            text = lines([beginning()])?;
            self.known.first = text.clone();
        }
        text.extend(lines(new.iter().cloned())?);
        let appended = self.append(&text);
        if appended.is_err() {
            // How much of it is there is to be looked up.
            *self.known = Known::default();
        }
        appended?;
        self.known.length += text.len() as u64;
        self.known.lines += new.len();
        new.into_iter().for_each(|change| self.known.state.apply(change));
        self.tidy()
    }

    fn is_new(&self, change: &Change) -> bool {
        let state = &self.known.state;
        match change {
            Change::Begin(..) => false,
            Change::Ours(group) => !state.ours.contains(group),
            Change::NotOurs(group) => state.ours.contains(group),
            Change::Requests(pod, milli_cpu) => state.requests.get(pod) != Some(milli_cpu),
            Change::Gone(pod) => state.requests.contains_key(pod),
        }
    }

    /// Reads what is new in the file.
    fn read(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self.known = Known::default();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut first = Vec::new();
        BufReader::new(&file)
            .take(LONGEST_FIRST)
            .read_until(b'\n', &mut first)?;
        let length = file.metadata()?.len();
        if first != self.known.first || length < self.known.length {
            *self.known = Known::default();
            if !is_beginning(&first) {
                // Who appends next begins anew.
                return Ok(());
            }
            self.known.length = first.len() as u64;
            self.known.first = first;
        }
        if length == self.known.length {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.known.length))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let end = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |last| last + 1);
        let lines = text[..end].split_inclusive(|&byte| byte == b'\n');
        for line in lines {
            self.known.state.apply(serde_json::from_slice(line)?);
            self.known.lines += 1;
        }
        self.known.length += end as u64;
        Ok(())
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        // Nothing, or what a killed program has left of a line.
        file.set_len(self.known.length)?;
        let mut file = file;
        file.seek(SeekFrom::End(0))?;
        file.write_all(text)
    }

    /// Removes a list of nothing, and writes one anew that is mostly of what is no longer so.
    fn tidy(&mut self) -> io::Result<()> {
        let live = self.known.state.len();
        if live == 0 {
            *self.known = Known::default();
            return std::fs::remove_file(&self.path);
        }
        if self.known.lines <= FEW.max(live * WASTE) {
            return Ok(());
        }
        let first = lines([beginning()])?;
        let mut text = first.clone();
        text.extend(lines(self.known.state.changes())?);
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        std::fs::rename(&new, &self.path)?;
        self.known.first = first;
        self.known.length = text.len() as u64;
        self.known.lines = live;
        Ok(())
    }
}

fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    let boot = BOOT.get_or_init(|| std::fs::read_to_string(BOOT_ID).unwrap_or_default());
    boot.trim()
}

/// The first line of a new file. The number of its inode would not tell it from others: it is given anew when one is removed.
fn beginning() -> Change {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let which = format!("{}-{}-{count}", std::process::id(), since.as_nanos());
    Change::Begin(boot().to_owned(), which)
}

/// Whether a file of this boot begins with this line.
fn is_beginning(line: &[u8]) -> bool {
    line.ends_with(b"\n")
        && matches!(serde_json::from_slice(line), Ok(Change::Begin(begun, _)) if begun == boot())
}

fn lines(changes: impl IntoIterator<Item = Change>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for change in changes {
        serde_json::to_writer(&mut text, &change)?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(number: u8) -> PathBuf {
        format!("node/kubepods/burstable/pod{number}").into()
    }

    fn group(number: u8) -> PathBuf {
        ["node", "node/kubepods", "node/kubepods/burstable"][usize::from(number % 3)].into()
    }

    /// What is on the disk, to somebody who has not read it before.
    fn read(directory: &Path) -> State {
        let list = List::new(directory);
        let locked = list.lock().unwrap();
        locked.known.state.clone()
    }

    fn file(directory: &Path) -> PathBuf {
        directory.join(NAME)
    }

    fn after(changes: &[Change]) -> State {
        let mut state = State::default();
        changes.iter().cloned().for_each(|change| state.apply(change));
        state
    }

    #[test]
    fn requests_are_summed_by_group() {
        let directory = tempfile::tempdir().unwrap();
        let list = List::new(directory.path());
        let mut locked = list.lock().unwrap();
        let changes = vec![
            Change::Requests(pod(1), 100),
            Change::Requests(pod(2), 250),
            Change::Requests("node/kubepods/podg".into(), 1000),
            Change::Requests(pod(2), 50),
        ];
        locked.note(changes).unwrap();
        let sum = |locked: &Locked<'_>, group: &str| locked.requested_in(Path::new(group));
        assert_eq!(sum(&locked, "node/kubepods/burstable"), 150);
        assert_eq!(sum(&locked, "node/kubepods"), 1150);
        locked
            .note(vec![Change::Gone(pod(1)), Change::Gone(pod(9))])
            .unwrap();
        assert_eq!(sum(&locked, "node/kubepods/burstable"), 50);
        assert_eq!(sum(&locked, "node/kubepods/besteffort"), 0);
    }

    #[test]
    fn a_list_of_nothing_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let list = List::new(directory.path());
        let change = |change| list.lock().unwrap().note(vec![change]).unwrap();
        change(Change::Ours(group(0)));
        change(Change::Requests(pod(1), 0));
        change(Change::Gone(pod(1)));
        assert!(file(directory.path()).exists());
        change(Change::NotOurs(group(0)));
        assert!(!file(directory.path()).exists());
        change(Change::Ours(group(0)));
        assert_eq!(read(directory.path()), after(&[Change::Ours(group(0))]));
    }

    #[test]
    fn a_program_that_is_killed_while_it_writes_loses_no_more_than_that_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path());
        let changes: Vec<_> = (1..4).map(|n| Change::Requests(pod(n), i64::from(n))).collect();
        List::new(directory.path())
            .lock()
            .unwrap()
            .note(changes.clone())
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
            // The first one says when the list began.
            let mut expected = changes[..lines.saturating_sub(1)].to_vec();
            assert_eq!(read(directory.path()), after(&expected), "{length}");
            let next = Change::Requests(pod(7), 7);
            List::new(directory.path())
                .lock()
                .unwrap()
                .note(vec![next.clone()])
                .unwrap();
            expected.push(next);
            assert_eq!(read(directory.path()), after(&expected), "{length}");
        }
    }

    #[test]
    fn the_list_of_another_boot_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let note = |change: Change| {
            List::new(directory.path())
                .lock()
                .unwrap()
                .note(vec![change])
                .unwrap()
        };
        note(Change::Requests(pod(1), 1));
        let text = std::fs::read_to_string(file(directory.path())).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        for other in [r#"{"begin":["of the day before","1-2-3"]}"#, "\0\0\0\0", ""] {
            std::fs::write(file(directory.path()), format!("{other}\n{rest}")).unwrap();
            assert_eq!(read(directory.path()), State::default(), "{other}");
            note(Change::Requests(pod(2), 2));
            assert_eq!(read(directory.path()), after(&[Change::Requests(pod(2), 2)]));
            let text = std::fs::read(file(directory.path())).unwrap();
            assert!(is_beginning(
                text.split_inclusive(|&byte| byte == b'\n').next().unwrap()
            ));
        }
    }

    #[test]
    fn what_a_killed_program_left_while_it_tidied_is_no_list() {
        let directory = tempfile::tempdir().unwrap();
        let list = List::new(directory.path());
        let stays = Change::Requests(pod(0), 5);
        list.lock().unwrap().note(vec![stays.clone()]).unwrap();
        std::fs::write(file(directory.path()).with_extension("new"), "{\"requ").unwrap();
        assert_eq!(read(directory.path()), after(std::slice::from_ref(&stays)));
        for round in 0..FEW {
            let milli_cpu = i64::try_from(round).unwrap();
            list.lock()
                .unwrap()
                .note(vec![Change::Requests(pod(1), milli_cpu)])
                .unwrap();
        }
        let last = Change::Requests(pod(1), i64::try_from(FEW - 1).unwrap());
        assert_eq!(read(directory.path()), after(&[stays, last]));
    }

    #[test]
    fn the_file_stays_as_long_as_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let list = List::new(directory.path());
        list.lock().unwrap().note(vec![Change::Ours(group(0))]).unwrap();
        for number in (0..50).cycle().take(1000) {
            list.lock()
                .unwrap()
                .note(vec![Change::Requests(pod(number), 1)])
                .unwrap();
            list.lock()
                .unwrap()
                .note(vec![Change::Gone(pod(number))])
                .unwrap();
        }
        let text = std::fs::read_to_string(file(directory.path())).unwrap();
        assert!(text.lines().count() <= FEW + 3, "{text}");
        assert_eq!(read(directory.path()), after(&[Change::Ours(group(0))]));
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            any::<u8>().prop_map(|n| Change::Ours(group(n))),
            any::<u8>().prop_map(|n| Change::NotOurs(group(n))),
            (0..6u8, 0..4i64).prop_map(|(n, milli_cpu)| Change::Requests(pod(n), milli_cpu)),
            (0..6u8).prop_map(|n| Change::Gone(pod(n))),
        ]
    }

    proptest! {
        /// Whichever programs change it, and wherever one of them is killed in the middle of a line, all see the same: what was
        /// said last.
        #[test]
        fn programs_that_share_it_agree(steps in prop::collection::vec((0..3usize, change(), any::<bool>()), 1..200)) {
            let directory = tempfile::tempdir().unwrap();
            let programs = [(); 3].map(|()| List::new(directory.path()));
            let mut expected = State::default();
            for (program, change, is_killed) in steps {
                let mut locked = programs[program].lock().unwrap();
                prop_assert_eq!(&locked.known.state, &expected);
                expected.apply(change.clone());
                locked.note(vec![change]).unwrap();
                prop_assert_eq!(&locked.known.state, &expected);
                if is_killed && file(directory.path()).exists() {
                    let mut file = OpenOptions::new().append(true).open(file(directory.path())).unwrap();
                    file.write_all(b"{\"requests\":[\"node/kubepods").unwrap();
                }
            }
            prop_assert_eq!(read(directory.path()), expected);
        }
    }
}
