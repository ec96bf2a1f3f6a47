//! Files of a bundle: members of an archive, or of a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::{ImportSource, MAX_DOCUMENT};
use crate::error::ImageError;
use crate::store::Operation;
use crate::unpack::{Limits, TarKind, TarReader, UnpackError, decompress};

/// Members that an archive may have: a few for each of many layers.
const MAX_MEMBERS: usize = 100_000;
/// Links that are followed from one member to another.
const MAX_LINKS: usize = 8;
const BUFFER: usize = 128 * 1024;

/// A directory or an archive.
pub(super) enum Bundle {
    Directory {
        root: OwnedFd,
        path: PathBuf,
    },
    Archive {
        file: Arc<File>,
        members: HashMap<String, Place>,
    },
}

/// Where a member of an archive is.
pub(super) enum Place {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A member, to be read once.
pub(super) struct Member {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Bundle {
    pub(super) fn open(
        source: ImportSource,
        operation: &Operation,
        limits: Limits,
    ) -> Result<Self, ImageError> {
        let shown = source.to_string();
        let (reader, file): (Box<dyn Read + Send>, Option<File>) = match source {
            ImportSource::Stream(stream) => (stream, None),
            ImportSource::Path(path) => {
                let failed = |e: io::Error| match e.kind() {
                    io::ErrorKind::NotFound => {
                        ImageError::NotFound(format!("there is no file {}", path.display()))
                    }
                    _ => ImageError::io("open", &path, &e),
                };
                let file = File::open(&path).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                if metadata.is_dir() {
                    return Ok(Self::Directory {
                        root: file.into(),
                        path,
                    });
                }
                let copy = file.try_clone().map_err(failed)?;
                (Box::new(copy), metadata.is_file().then_some(file))
            }
        };
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        let file = match file {
            Some(file)
                if !decompress::is_compressed(&mut reader).map_err(|e| unreadable(&shown, e.into()))? =>
            {
                file
            }
            _ => spool(&mut reader, operation, limits, &shown)?,
        };
        let members = scan(&file).map_err(|e| unreadable(&shown, e))?;
        Ok(Self::Archive {
            file: Arc::new(file),
            members,
        })
    }

    /// A member by its path, if it is there.
    pub(super) fn member(&self, name: &str) -> Result<Option<Member>, ImageError> {
        match self {
            Self::Directory { root, path } => open_beneath(root, path, name),
            Self::Archive { file, members } => {
                let mut name = name.to_owned();
                for _ in 0..MAX_LINKS {
                    match members.get(&name) {
                        None => return Ok(None),
                        Some(Place::Link(to)) => name.clone_from(to),
                        Some(Place::File { offset, size }) => {
                            let file = Arc::clone(file);
                            return Ok(Some(Member {
                                file,
                                offset: *offset,
                                end: offset + size,
                            }));
                        }
                    }
                }
                Err(ImageError::Refused(format!(
                    "{name} is a link that leads nowhere"
                )))
            }
        }
    }

    /// A JSON document in memory.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(mut member) = self.member(name)? else {
            return Ok(None);
        };
        if member.size() > MAX_DOCUMENT {
            return Err(ImageError::Refused(format!(
                "{name} is longer than {MAX_DOCUMENT} bytes"
            )));
        }
        let mut bytes = Vec::new();
        member
            .read_to_end(&mut bytes)
            .map_err(|e| ImageError::Corrupt(format!("{name} can't be read: {e}")))?;
        Ok(Some(bytes))
    }
}

impl Member {
    pub(super) fn size(&self) -> u64 {
        self.end - self.offset
    }
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.size()).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        Ok(n)
    }
}

fn open_beneath(root: &OwnedFd, path: &Path, name: &str) -> Result<Option<Member>, ImageError> {
    let failed = |e: io::Error| ImageError::io("open", &path.join(name), &e);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(
        root,
        name,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV) => return Err(ImageError::Refused(format!("{name} leads out of the directory"))),
        Err(e) => return Err(failed(e.into())),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ImageError::Refused(format!("{name} is not a regular file")));
    }
    Ok(Some(Member {
        file: Arc::new(file),
        offset: 0,
        end: metadata.len(),
    }))
}

/// Writes an archive that can't be read from any place, uncompressed, to a file without a name.
fn spool(
    reader: &mut BufReader<Box<dyn Read + Send>>,
    operation: &Operation,
    limits: Limits,
    shown: &str,
) -> Result<File, ImageError> {
    let directory = operation.directory();
    let failed = |e: io::Error| ImageError::io("make a temporary file in", directory, &e);
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mut file = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?);
    let mut plain = decompress::open(reader).map_err(|e| unreadable(shown, e))?;
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let n = match plain.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(shown, e.into())),
        };
        total += n as u64;
        if total > limits.max_bytes {
            return Err(ImageError::Refused(format!(
                "{shown} is longer than the allowed {} bytes",
                limits.max_bytes
            )));
        }
        file.write_all(&buffer[..n])
            .map_err(|e| ImageError::io("write to", directory, &e))?;
    }
}

/// Finds where everything is.
fn scan(file: &File) -> Result<HashMap<String, Place>, UnpackError> {
    let mut members = HashMap::new();
    let mut reader = TarReader::new(Positioned { file, position: 0 });
    while let Some(entry) = reader.next_entry()? {
        let offset = reader.get_ref().position;
        let Some(name) = std::str::from_utf8(&entry.name)
            .ok()
            .and_then(|name| join("", name))
        else {
            continue;
        };
        let place = match entry.kind {
            TarKind::Regular => Place::File {
                offset,
                size: reader.remaining(),
            },
            TarKind::Symlink | TarKind::HardLink => {
                let base = if entry.kind == TarKind::Symlink {
                    parent(&name)
                } else {
                    ""
                };
                match std::str::from_utf8(&entry.link)
                    .ok()
                    .and_then(|link| join(base, link))
                {
                    Some(to) => Place::Link(to),
                    None => continue,
                }
            }
            _ => continue,
        };
        reader.skip_content(|inner, bytes| {
            inner.position = inner.position.saturating_add(bytes);
        });
        if members.len() >= MAX_MEMBERS {
            return Err(UnpackError::Refused(format!(
                "it has more than {MAX_MEMBERS} members"
            )));
        }
        members.insert(name, place);
    }
    Ok(members)
}

/// A path in the archive, of a link beside `base`. `None` if it leads out.
fn join(base: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Reads a file from a position of its own.
struct Positioned<'a> {
    file: &'a File,
    position: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

fn unreadable(shown: &str, error: UnpackError) -> ImageError {
    let text = format!("{shown} can't be imported: {error}");
    match error {
        UnpackError::Refused(_) => ImageError::Refused(text),
        UnpackError::Unsupported(_) => ImageError::Unsupported(text),
        UnpackError::Disk(error) => error,
        UnpackError::Corrupt(_) | UnpackError::Source(_) => ImageError::Corrupt(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_archive() {
        let table = [
            ("", "./a/b", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("", "../a", None),
            ("x/y", "../../../a", None),
            ("", "/etc/passwd", None),
        ];
        for (base, link, joined) in table {
            assert_eq!(join(base, link).as_deref(), joined, "{base} {link}");
        }
    }
}
