//! Removing images that nobody uses.
//!
//! The last use of an image is the time of modification of its configuration's file: it is set when a lease on the image is
//! taken or given back, goes with the image, and outlives whoever used it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Store;
use super::index::{Index, Record};
use super::layout::Layout;
use super::lease::{self, Held};
use super::operation::now_nanos;
use super::snapshot::Snapshot;
use super::sweep::sweep;
use crate::digest::Digest;
use crate::error::ImageError;

/// Which images may go. Those in use never do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwanted {
    /// Images with names, too; otherwise only those whose last name was taken by another image.
    pub named: bool,
    /// Not those that came in this last time…
    pub min_age: Duration,
    /// …and not those that were used in this one, or came.
    pub unused_for: Duration,
    /// Not images with these names; a `*` at the end stands for anything.
    pub pinned: Vec<String>,
    /// Stop once so many bytes are free, those that were not used for the longest time first.
    pub bytes: Option<u64>,
}

/// An image that was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The image.
    pub id: String,
    /// Its names; without tags, its names with digests.
    pub names: Vec<String>,
    /// Bytes of its files that no image which stays and no lease needs.
    pub freed: u64,
    /// When it was used last, or came; seconds since the Unix epoch.
    pub last_used: u64,
}

impl Store {
    /// What [`Self::collect`] would remove now. Blocking.
    ///
    /// # Errors
    /// The store is damaged, or the file system refuses.
    pub fn unwanted(&self, which: &Unwanted) -> Result<Vec<Collected>, ImageError> {
        let index = Index::load(self.layout())?;
        choose(self.layout(), &index, which)
    }

    /// Removes images that nobody uses, with their layers. While a pull is under way, in any process, the layers go with the
    /// next removal. Blocking.
    ///
    /// # Errors
    /// The store is damaged, or the file system refuses.
    pub fn collect(&self, which: &Unwanted) -> Result<Vec<Collected>, ImageError> {
        let layout = self.layout();
        let collected = Index::update(layout, |index| {
            let chosen = choose(layout, index, which)?;
            for image in &chosen {
                index.images.remove(&image.id);
            }
            Ok(chosen)
        })?;
        sweep(layout, Duration::ZERO)?;
        Ok(collected)
    }
}

/// Notes that an image is being used now. One that can't be noted is only thought to be older than it is.
pub(super) fn note_use(layout: &Layout, id: &str) {
    if let Ok(digest) = id.parse::<Digest>() {
        let opened = File::options().write(true).open(layout.blob(&digest));
        let _ = opened.and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
    }
}

/// When an image was used last, in nanoseconds since the Unix epoch. A clock that was set back makes none older than its
/// coming.
pub(super) fn last_use(blob: &Path, record: &Record) -> u64 {
    let modified = fs::metadata(blob).and_then(|file| file.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let nanos = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    nanos.max(record.fetched_at)
}

fn choose(layout: &Layout, index: &Index, which: &Unwanted) -> Result<Vec<Collected>, ImageError> {
    let leases = lease::all(layout)?;
    let in_use: BTreeSet<&String> = leases.values().flat_map(BTreeMap::keys).collect();
    let now = now_nanos();
    let mut free: Vec<Candidate<'_>> = index
        .images
        .iter()
        .filter(|(id, _)| !in_use.contains(id))
        .map(|(id, record)| Candidate {
            id,
            record,
            last_used: last_use(&blob(layout, id), record),
        })
        .filter(|candidate| candidate.may_go(which, now))
        .collect();
    free.sort_by_key(|candidate| (candidate.last_used, candidate.record.fetched_at));
    let mut needed = Needed::new(index, &leases);
    let mut chosen = Vec::new();
    let mut freed = 0;
    for candidate in free {
        if which.bytes.is_some_and(|bytes| freed >= bytes) {
            break;
        }
        let own = needed.without(layout, candidate.id, candidate.record)?;
        freed += own;
        let record = candidate.record;
        let names = if record.names.is_empty() {
            &record.digests
        } else {
            &record.names
        };
        chosen.push(Collected {
            id: candidate.id.clone(),
            names: names.iter().cloned().collect(),
            freed: own,
            last_used: candidate.last_used / 1_000_000_000,
        });
    }
    Ok(chosen)
}

fn blob(layout: &Layout, digest: &str) -> std::path::PathBuf {
    // What is no digest has no file, and was never used.
    digest
        .parse::<Digest>()
        .map_or_else(|_| layout.blobs().join(digest), |digest| layout.blob(&digest))
}

/// An image that nobody uses.
struct Candidate<'a> {
    id: &'a String,
    record: &'a Record,
    last_used: u64,
}

impl Candidate<'_> {
    fn may_go(&self, which: &Unwanted, now: u64) -> bool {
        let record = self.record;
        let older = |time: u64, age: Duration| {
            age.is_zero() || u128::from(now.saturating_sub(time)) >= age.as_nanos()
        };
        let is_pinned = |name: &String| which.pinned.iter().any(|pattern| fits(pattern, name));
        (which.named || record.names.is_empty())
            && older(record.fetched_at, which.min_age)
            && older(self.last_used, which.unused_for)
            && !record.names.iter().chain(&record.digests).any(is_pinned)
    }
}

/// Whether a name is the pattern, or begins with what the pattern has before its `*`.
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

/// How many images and leases need each layer.
struct Needed(HashMap<String, usize>);

impl Needed {
    fn new(index: &Index, leases: &BTreeMap<String, Held>) -> Self {
        let of_images = index.images.values().flat_map(|record| &record.snapshots);
        let of_leases = leases.values().flat_map(|held| held.values().flatten());
        let mut counts = HashMap::new();
        for key in of_images.chain(of_leases) {
            *counts.entry(key.clone()).or_insert(0) += 1;
        }
        Self(counts)
    }

    /// Bytes that go with an image now.
    fn without(&mut self, layout: &Layout, id: &str, record: &Record) -> Result<u64, ImageError> {
        let mut bytes = 0;
        for key in &record.snapshots {
            let left = self.0.get_mut(key).map_or(0, |count| {
                *count = count.saturating_sub(1);
                *count
            });
            if left == 0 {
                bytes += Snapshot::load(layout, key)?.map_or(0, |snapshot| snapshot.bytes);
            }
        }
        let size = |digest: &str| fs::metadata(blob(layout, digest)).map_or(0, |file| file.len());
        Ok(bytes + size(id) + size(&record.manifest))
    }
}
