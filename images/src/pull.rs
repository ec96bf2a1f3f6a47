//! Pulling an image: manifest, configuration, then all layers at once.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_blocking;

use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::hosts::{self, Host};
use crate::image::{Image, LayerState, PullProgress};
use crate::manifest::{Descriptor, Manifest, choose, read_config};
use crate::reference::Reference;
use crate::registry::{Patience, Registry};
use crate::store::{LayerSlot, NewImage, Operation, Store, Taken, now_nanos};
use crate::unpack::{Budget, LayerClaim};

/// Chunks between the network and the unpacker: about a MiB.
const CHUNKS_AHEAD: usize = 32;

/// Told how far it is, from several threads.
type Progress<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

/// What a reference means.
struct Resolved {
    /// Of the reference: an index, or the manifest itself.
    top: Digest,
    manifest: (Digest, Vec<u8>),
    config: (Digest, Vec<u8>),
    layers: Vec<(Descriptor, Digest)>,
}

impl Store {
    /// Fetches an image from its registry with the credentials of `~/.docker/config.json`, or finds that it is all here
    /// already. Layers come in parallel, each unpacked while it downloads. Calls for the same image, also in other
    /// processes, share one download. `progress` may be called from several threads.
    ///
    /// Needs a tokio runtime with I/O and time. Dropping the future ends the pull.
    ///
    /// # Errors
    /// See [`ImageError`]. Nothing incomplete is left behind.
    pub async fn pull(&self, reference: &Reference, progress: Progress<'_>) -> Result<Image, ImageError> {
        let credentials = Credentials::of_docker(reference.registry()).await?;
        self.pull_with(reference, credentials, progress).await
    }

    /// As [`Self::pull`], with other credentials.
    ///
    /// # Errors
    /// The same.
    pub async fn pull_with(
        &self,
        reference: &Reference,
        credentials: Credentials,
        progress: Progress<'_>,
    ) -> Result<Image, ImageError> {
        let asked_at = now_nanos();
        let store = self.clone();
        let operation = Arc::new(blocking(move || store.begin()).await?);
        let name = format!("pull-{}", Digest::sha256(reference.to_string().as_bytes()).hex());
        let mut lock = operation.try_lock(&name)?;
        if lock.is_none() {
            let waiting = Arc::clone(&operation);
            lock = Some(blocking(move || waiting.lock(&name)).await?);
            if let Some(image) = self.fetched_since(reference, asked_at)? {
                return Ok(image);
            }
        }
        let resolved = self.fetch(&operation, reference, credentials, progress).await?;
        let image = resolved.into_image(reference);
        let image = blocking(move || image.commit(&operation)).await;
        drop(lock);
        self.settler().wake();
        image
    }

    /// Gets manifest, configuration and layers from the first host that has them all.
    async fn fetch(
        &self,
        operation: &Arc<Operation>,
        reference: &Reference,
        credentials: Credentials,
        progress: Progress<'_>,
    ) -> Result<Resolved, ImageError> {
        let mut hosts = hosts::of(self.options().registry_dir.as_deref(), reference)?
            .into_iter()
            .peekable();
        loop {
            let Some(host) = hosts.next() else {
                return Err(ImageError::Registry(format!(
                    "{reference} can't be pulled: there is nobody to ask"
                )));
            };
            let base = host.base.clone();
            let own = if host.upstream {
                credentials.clone()
            } else {
                Credentials::of_docker(&authority(&base)).await?
            };
            let outcome = self.fetch_from(operation, reference, host, own, progress).await;
            match outcome {
                // What is wrong with the image itself is as wrong elsewhere, and a full disk stays full.
                Err(error) if hosts.peek().is_some() && error.is_of_the_host() => {
                    tracing::warn!("The mirror {base} is passed over: {error}.");
                }
                outcome => return outcome,
            }
        }
    }

    async fn fetch_from(
        &self,
        operation: &Arc<Operation>,
        reference: &Reference,
        host: Host,
        credentials: Credentials,
        progress: Progress<'_>,
    ) -> Result<Resolved, ImageError> {
        let patience = Arc::new(Patience::new(self.options().progress_timeout));
        let registry = Registry::new(reference, host, credentials, Arc::clone(&patience))?;
        let fetch = async {
            let resolved = resolve(&registry, reference).await?;
            self.fetch_layers(operation, &registry, reference, &resolved.layers, progress)
                .await?;
            Ok(resolved)
        };
        tokio::select! {
            fetched = fetch => fetched,
            limit = patience.end() => Err(ImageError::Registry(format!(
                "{reference} can't be pulled: its registry was waited for for {} seconds in which next to nothing came",
                limit.as_secs_f64()
            ))),
        }
    }

    /// What somebody else fetched while we waited.
    fn fetched_since(&self, reference: &Reference, asked_at: u64) -> Result<Option<Image>, ImageError> {
        Ok(self
            .find(&reference.to_string())?
            .filter(|image| image.fetched_at_nanos >= asked_at))
    }

    async fn fetch_layers(
        &self,
        operation: &Arc<Operation>,
        registry: &Registry,
        reference: &Reference,
        layers: &[(Descriptor, Digest)],
        progress: Progress<'_>,
    ) -> Result<(), ImageError> {
        let budget = Budget::new(self.options().limits);
        let at_once = Semaphore::new(self.options().parallel_layers.max(1));
        let (cancel, cancelled) = watch::channel(false);
        let failure = OnceLock::new();
        let mut seen = BTreeSet::new();
        let fetches = layers
            .iter()
            .filter(|(_, diff_id)| seen.insert(diff_id))
            .map(|(blob, diff_id)| {
                let fetch = LayerFetch {
                    blob,
                    diff_id,
                    reference,
                    progress,
                    cancelled: cancelled.clone(),
                    at_once: &at_once,
                };
                let run = fetch.run(self, operation, registry, budget.clone());
                async {
                    if let Err(error) = run.await {
                        // The first is the reason; the others follow from it.
                        let _ = failure.set(error);
                        cancel.send_replace(true);
                    }
                }
            });
        // All of them end before we do, so that nothing is left behind.
        join_all(fetches).await;
        failure.into_inner().map_or(Ok(()), Err)
    }
}

/// Host and port of a URL.
fn authority(url: &str) -> String {
    let uri: Option<hyper::Uri> = url.parse().ok();
    uri.and_then(|uri| uri.authority().map(ToString::to_string))
        .unwrap_or_default()
}

async fn resolve(registry: &Registry, reference: &Reference) -> Result<Resolved, ImageError> {
    let named = reference.to_string();
    let bad = |why: String| ImageError::Unsupported(format!("{named} can't be used: {why}"));
    let (top, mut bytes) = registry.manifest(reference.version()).await?;
    let mut digest = top.clone();
    let mut parsed = Manifest::parse(&bytes).map_err(bad)?;
    if let Manifest::Index(entries) = &parsed {
        let chosen = choose(entries, &named)?;
        (digest, bytes) = registry.manifest(chosen.digest.as_str()).await?;
        parsed = Manifest::parse(&bytes).map_err(bad)?;
    }
    let Manifest::Image { config, layers } = parsed else {
        return Err(bad("it is an index in an index".to_owned()));
    };
    let config_bytes = registry.small_blob(&config.digest, config.size).await?;
    let diff_ids = read_config(&config_bytes, layers.len(), &named)?;
    Ok(Resolved {
        top,
        manifest: (digest, bytes),
        config: (config.digest, config_bytes),
        layers: layers.into_iter().zip(diff_ids).collect(),
    })
}

impl Resolved {
    fn into_image(self, reference: &Reference) -> NewImage {
        let by_digest = |digest: &Digest| reference.with_digest(digest.clone()).to_string();
        let tagged = reference.digest().is_none();
        NewImage {
            names: tagged.then(|| reference.to_string()).into_iter().collect(),
            digests: BTreeSet::from([by_digest(&self.top), by_digest(&self.manifest.0)]),
            diff_ids: self.layers.into_iter().map(|(_, diff_id)| diff_id).collect(),
            manifest: self.manifest,
            config: self.config,
        }
    }
}

/// One layer to get.
struct LayerFetch<'a> {
    blob: &'a Descriptor,
    diff_id: &'a Digest,
    reference: &'a Reference,
    progress: Progress<'a>,
    cancelled: watch::Receiver<bool>,
    /// The image's layers that may be under way.
    at_once: &'a Semaphore,
}

impl LayerFetch<'_> {
    async fn run(
        self,
        store: &Store,
        operation: &Arc<Operation>,
        registry: &Registry,
        budget: Budget,
    ) -> Result<(), ImageError> {
        self.report(0, LayerState::Waiting);
        let mut cancelled = self.cancelled.clone();
        // The turn first: whoever has it waits for permits alone, and those who have permits wait for no turn, so that all go
        // on. Only other processes are waited for with a permit and a thread; not who of this one waits for a registry in vain.
        let turn = tokio::select! {
            turn = store.turns().take(self.diff_id) => turn,
            _ = cancelled.wait_for(|cancelled| *cancelled) => return Ok(()),
        };
        let _permits = tokio::select! {
            permits = async { (self.at_once.acquire().await, store.layers().acquire().await) } => permits,
            _ = cancelled.wait_for(|cancelled| *cancelled) => return Ok(()),
        };
        let (at, diff_id) = (Arc::clone(operation), self.diff_id.clone());
        let acquire = match turn.is_beside() {
            true => LayerSlot::beside,
            false => LayerSlot::acquire,
        };
        let slot = tokio::select! {
            slot = blocking(move || acquire(&at, &diff_id)) => slot?,
            _ = cancelled.wait_for(|cancelled| *cancelled) => return Ok(()),
        };
        let Some(slot) = slot else {
            self.report(self.blob.size, LayerState::Exists);
            return Ok(());
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let claim = LayerClaim {
            name: self.blob.digest.to_string(),
            blob: Some((self.blob.digest.clone(), self.blob.size)),
            diff_id: self.diff_id.clone(),
        };
        let at = Arc::clone(operation);
        let unpacking = blocking(move || slot.unpack(&at, ChunkReader::new(receiver), &claim, &budget));
        let download = async {
            tokio::select! {
                () = self.download(registry, &turn, sender) => {}
                _ = cancelled.wait_for(|cancelled| *cancelled) => {}
            }
        };
        let (unpacked, ()) = tokio::join!(unpacking, download);
        unpacked.map_err(|error| error.about(&format!("{} can't be pulled", self.reference)))?;
        self.report(self.blob.size, LayerState::Complete);
        Ok(())
    }

    /// Hands the layer's bytes to the unpacker until one of the two has no more. The unpacker tells what went wrong.
    async fn download(&self, registry: &Registry, turn: &Taken, sender: mpsc::Sender<Chunk>) {
        let mut stream = registry.blob(&self.blob.digest, self.blob.size);
        let mut done = 0;
        loop {
            turn.moves();
            let chunk = stream.next().await.transpose();
            turn.is_fetched();
            if let Some(Ok(bytes)) = &chunk {
                done += bytes.len() as u64;
                self.report(done, LayerState::Fetching);
            }
            let last = !matches!(chunk, Some(Ok(_)));
            if sender.send(chunk).await.is_err() || last {
                return;
            }
        }
    }

    fn report(&self, done: u64, state: LayerState) {
        let layer = self.blob.digest.to_string();
        (self.progress)(PullProgress {
            layer,
            done,
            total: self.blob.size,
            state,
        });
    }
}

/// `None` is the end: a channel that closes without it lost its sender.
type Chunk = Option<Result<Bytes, ImageError>>;

/// What comes through a channel, as a reader for a thread.
struct ChunkReader {
    receiver: mpsc::Receiver<Chunk>,
    chunk: Bytes,
    ended: bool,
}

impl ChunkReader {
    fn new(receiver: mpsc::Receiver<Chunk>) -> Self {
        Self {
            receiver,
            chunk: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Some(Ok(chunk))) => self.chunk = chunk,
                Some(Some(Err(error))) => return Err(io::Error::other(error)),
                Some(None) => self.ended = true,
                None => {
                    let cancelled = ImageError::Registry("the pull was cancelled".to_owned());
                    return Err(io::Error::other(cancelled));
                }
            }
        }
        let n = buffer.len().min(self.chunk.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

/// Runs blocking work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(e) => Err(ImageError::Io(format!("the image store's thread failed: {e}"))),
    }
}
