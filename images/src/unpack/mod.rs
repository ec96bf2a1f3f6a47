//! From a layer's bytes to a directory that overlayfs can stack.

pub(crate) mod decompress;
mod extract;
mod limits;
mod name;
mod tar;

use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

pub(crate) use limits::Budget;
pub use limits::Limits;

use crate::digest::{Digest, HashingReader};
use crate::error::ImageError;
use extract::Extractor;
use limits::BudgetReader;
pub(crate) use tar::{Entry as TarEntry, Kind as TarKind, TarReader, Time as TarTime};

const READ_BUFFER: usize = 128 * 1024;

/// What a layer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct LayerClaim {
    /// For messages: the digest of the layer as it is transferred, or its name in an archive.
    pub(crate) name: String,
    /// Digest and size as it is transferred; archives do not always tell.
    pub(crate) blob: Option<(Digest, u64)>,
    /// The digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
}

/// What an unpacked layer is like.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Directories that no entry described, parents first: their owner and mode are those of the layers below.
    pub(crate) implicit: Vec<PathBuf>,
}

/// Why a layer could not be unpacked; [`unpack`] adds which.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// No honest layer does this.
    #[error("{0}")]
    Refused(String),
    /// Not a well-formed archive, or not the announced one.
    #[error("{0}")]
    Corrupt(String),
    /// Well-formed, but not for us.
    #[error("{0}")]
    Unsupported(String),
    /// The layer could not be read to its end.
    #[error("it could not be read: {0}")]
    Source(io::Error),
    /// The file system refused.
    #[error("{0}")]
    Disk(ImageError),
}

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl UnpackError {
    fn into_image_error(self, layer: &str) -> ImageError {
        match self {
            Self::Refused(why) => ImageError::Refused(format!("layer {layer} is refused: {why}")),
            Self::Corrupt(why) => ImageError::Corrupt(format!("layer {layer} is damaged: {why}")),
            Self::Unsupported(why) => ImageError::Unsupported(format!("layer {layer} can't be used: {why}")),
            Self::Disk(error) => error,
            Self::Source(error) => match find_image_error(&error) {
                Some(error) => error.clone(),
                None => ImageError::Corrupt(format!("layer {layer} is damaged: {error}")),
            },
        }
    }
}

/// The error of whoever supplies the bytes, which decompressors may have wrapped.
fn find_image_error(error: &io::Error) -> Option<&ImageError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ImageError>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}

/// Unpacks a layer into the new directory `target` and checks that it is the announced one. Blocking.
///
/// On an error, what is in `target` is not to be used; the caller removes it.
pub(crate) fn unpack(
    source: impl Read + Send,
    claim: &LayerClaim,
    budget: &Budget,
    target: &Path,
) -> Result<Unpacked, ImageError> {
    fs::create_dir(target).map_err(|e| ImageError::io("make the directory", target, &e))?;
    let hasher = claim
        .blob
        .as_ref()
        .map_or(&claim.diff_id, |(digest, _)| digest)
        .hasher();
    let limit = claim.blob.as_ref().map(|(_, size)| *size);
    let mut blob = BufReader::with_capacity(
        READ_BUFFER,
        HashingReader::new(SizeLimited::new(source, limit), hasher),
    );
    let outcome = unpack_stream(&mut blob, claim, budget, target);
    let broken = matches!(outcome, Err(UnpackError::Corrupt(_) | UnpackError::Source(_)));
    if (outcome.is_ok() || broken)
        && let Err(error) = check_blob(blob, claim)
        && !(broken && matches!(error, UnpackError::Source(_)))
    {
        return Err(error.into_image_error(&claim.name));
    }
    outcome.map_err(|error| error.into_image_error(&claim.name))
}

/// Unpacks a layer that nobody has announced into a directory that has nothing of it yet. Blocking.
///
/// # Errors
/// As those of a pull; what is in `target` is not to be used then.
pub fn apply(source: impl Read + Send, target: &Path, limits: Limits) -> Result<(), ImageError> {
    let budget = Budget::new(limits);
    let mut blob = BufReader::with_capacity(READ_BUFFER, source);
    let mut extract = || {
        let mut archive = TarReader::new(BudgetReader::new(decompress::open(&mut blob)?, &budget));
        extract_all(&mut archive, &budget, target)
    };
    let extracted = extract().map(|_| ()).map_err(|error| match budget.exceeded() {
        Some(why) => UnpackError::Refused(why),
        None => error,
    });
    extracted.map_err(|error| error.into_image_error("of changed files"))
}

fn unpack_stream(
    blob: &mut (impl io::BufRead + Send),
    claim: &LayerClaim,
    budget: &Budget,
    target: &Path,
) -> Result<Unpacked, UnpackError> {
    let plain = BudgetReader::new(decompress::open(blob)?, budget);
    let mut archive = TarReader::new(HashingReader::new(plain, claim.diff_id.hasher()));
    let unpacked = extract_all(&mut archive, budget, target).and_then(|unpacked| {
        archive.drain()?;
        Ok(unpacked)
    });
    if let Some(why) = budget.exceeded() {
        return Err(UnpackError::Refused(why));
    }
    let unpacked = unpacked?;
    let (diff_id, _) = archive.into_inner().finish();
    if diff_id != claim.diff_id {
        return Err(UnpackError::Corrupt(format!(
            "uncompressed it is {diff_id}, and the image's configuration says {}",
            claim.diff_id
        )));
    }
    Ok(unpacked)
}

fn extract_all<R: Read>(
    archive: &mut TarReader<R>,
    budget: &Budget,
    target: &Path,
) -> Result<Unpacked, UnpackError> {
    let mut extractor = Extractor::new(target)?;
    while let Some(entry) = archive.next_entry()? {
        budget.take_entry().map_err(UnpackError::Refused)?;
        extractor.entry(&entry, archive)?;
    }
    extractor.finish()
}

/// Reads the rest of the blob and compares.
fn check_blob<R: Read>(mut blob: BufReader<HashingReader<R>>, claim: &LayerClaim) -> Result<(), UnpackError> {
    let Some((digest, size)) = &claim.blob else {
        return Ok(());
    };
    io::copy(&mut blob, &mut io::sink()).map_err(UnpackError::Source)?;
    let (found, bytes) = blob.into_inner().finish();
    if bytes != *size {
        return Err(UnpackError::Corrupt(format!(
            "it has {bytes} bytes, and the manifest says {size}"
        )));
    }
    if found != *digest {
        return Err(UnpackError::Corrupt(format!(
            "its digest is {found}, and the manifest says {digest}"
        )));
    }
    Ok(())
}

/// Fails once more bytes come than were announced.
struct SizeLimited<R> {
    inner: R,
    left: Option<u64>,
    exceeded: bool,
}

impl<R> SizeLimited<R> {
    fn new(inner: R, left: Option<u64>) -> Self {
        Self {
            inner,
            left,
            exceeded: false,
        }
    }
}

impl<R: Read> Read for SizeLimited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = if self.exceeded {
            0
        } else {
            self.inner.read(buffer)?
        };
        if let Some(left) = &mut self.left {
            self.exceeded |= n as u64 > *left;
            *left = left.saturating_sub(n as u64);
        }
        if self.exceeded {
            Err(io::Error::other("it has more bytes than the manifest says"))
        } else {
            Ok(n)
        }
    }
}
