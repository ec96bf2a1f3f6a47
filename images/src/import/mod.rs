//! Importing images from files: OCI layouts, as a directory or an archive, and the archives of `docker save`.

mod bundle;
mod docker;
mod layout;

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;

use bundle::Bundle;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::{Image, LayerState, PullProgress};
use crate::reference::Reference;
use crate::store::{LayerSlot, NewImage, Operation, Store};
use crate::unpack::{Budget, LayerClaim};

/// The largest JSON document of an archive.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Where images are imported from.
pub enum ImportSource {
    /// A directory with an OCI layout, or an archive, which may be compressed.
    Path(PathBuf),
    /// An archive that comes through a pipe.
    Stream(Box<dyn Read + Send>),
}

impl std::fmt::Display for ImportSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Stream(_) => f.write_str("standard input"),
        }
    }
}

/// An image of a bundle, before its layers are unpacked.
struct Found {
    /// Names that the bundle gives it.
    names: Vec<Reference>,
    manifest: (Digest, Vec<u8>),
    config: (Digest, Vec<u8>),
    layers: Vec<FoundLayer>,
}

/// A layer in a bundle.
struct FoundLayer {
    member: String,
    claim: LayerClaim,
}

impl Store {
    /// Imports all images of a bundle that are for this machine, under their own names, or, if `name` is given, the only
    /// one under that name. Blocking. `progress` may be called from several threads.
    ///
    /// # Errors
    /// See [`ImageError`]. Images before the one that failed are there; nothing incomplete is.
    pub fn import(
        &self,
        source: ImportSource,
        name: Option<&Reference>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Vec<Image>, ImageError> {
        let what = format!("{source} can't be imported");
        let shown = source.to_string();
        let operation = self.begin()?;
        let bundle = Bundle::open(source, &operation, self.options().limits)?;
        let mut found = find(&bundle).map_err(|error| error.about(&what))?;
        if let Some(name) = name {
            let [image] = &mut found[..] else {
                return Err(ImageError::Unsupported(format!(
                    "{shown} has {} images, and one name was given: import them under their own names",
                    found.len()
                )));
            };
            image.names = vec![name.clone()];
        }
        found
            .into_iter()
            .map(|image| {
                self.import_one(&operation, &bundle, image, progress)
                    .map_err(|e| e.about(&what))
            })
            .collect()
    }

    fn import_one(
        &self,
        operation: &Operation,
        bundle: &Bundle,
        image: Found,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Image, ImageError> {
        let budget = Budget::new(self.options().limits);
        let mut seen = BTreeSet::new();
        let queue: VecDeque<&FoundLayer> = image
            .layers
            .iter()
            .filter(|layer| seen.insert(&layer.claim.diff_id))
            .collect();
        let workers = self.options().parallel_layers.clamp(1, queue.len().max(1));
        let queue = Mutex::new(queue);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(layer) = take(&queue) {
                if let Err(error) = unpack_layer(operation, bundle, layer, &budget, progress) {
                    lock(&failure).get_or_insert(error);
                    lock(&queue).clear();
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        let digest = image.manifest.0.clone();
        let new = NewImage {
            names: image
                .names
                .iter()
                .filter(|name| name.tag().is_some())
                .map(ToString::to_string)
                .collect(),
            digests: image
                .names
                .iter()
                .map(|name| name.with_digest(digest.clone()).to_string())
                .collect(),
            diff_ids: image
                .layers
                .into_iter()
                .map(|layer| layer.claim.diff_id)
                .collect(),
            manifest: image.manifest,
            config: image.config,
        };
        let image = new.commit(operation);
        self.settler().wake();
        image
    }
}

fn find(bundle: &Bundle) -> Result<Vec<Found>, ImageError> {
    if let Some(index) = bundle.document("index.json")? {
        return layout::find(bundle, &index);
    }
    if let Some(manifest) = bundle.document("manifest.json")? {
        return docker::find(bundle, &manifest);
    }
    Err(ImageError::Unsupported(
        "it is neither an OCI layout (no index.json) nor an archive of `docker save` (no manifest.json)"
            .to_owned(),
    ))
}

fn unpack_layer(
    operation: &Operation,
    bundle: &Bundle,
    layer: &FoundLayer,
    budget: &Budget,
    progress: &(dyn Fn(PullProgress) + Send + Sync),
) -> Result<(), ImageError> {
    let missing = || ImageError::Corrupt(format!("layer {} is not in it", layer.member));
    let member = bundle.member(&layer.member)?.ok_or_else(missing)?;
    let total = member.size();
    let report = |done, state| {
        progress(PullProgress {
            layer: layer.claim.name.clone(),
            done,
            total,
            state,
        })
    };
    let Some(slot) = LayerSlot::acquire(operation, &layer.claim.diff_id)? else {
        report(total, LayerState::Exists);
        return Ok(());
    };
    let source = Reported {
        inner: member,
        done: 0,
        report: |done| report(done, LayerState::Fetching),
    };
    slot.unpack(operation, source, &layer.claim, budget)?;
    report(total, LayerState::Complete);
    Ok(())
}

/// Tells how far a reader is.
struct Reported<R, F> {
    inner: R,
    done: u64,
    report: F,
}

impl<R: Read, F: Fn(u64)> Read for Reported<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.report)(self.done);
        Ok(n)
    }
}

fn take<'a>(queue: &Mutex<VecDeque<&'a FoundLayer>>) -> Option<&'a FoundLayer> {
    lock(queue).pop_front()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
