//! The store: images on disk.

mod collect;
mod commit;
mod find;
mod index;
mod layer;
mod layout;
mod lease;
mod lock;
mod operation;
mod rebase;
mod remove;
mod settle;
mod snapshot;
mod sweep;
mod turn;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use collect::{Collected, Unwanted, fits};
pub(crate) use commit::NewImage;
use index::Index;
pub(crate) use index::Record;
pub(crate) use layer::LayerSlot;
pub(crate) use layout::Layout;
pub(crate) use operation::{Operation, now_nanos};
pub use remove::Removed;
use settle::Settler;
pub(crate) use turn::Taken;
use turn::Turns;

use crate::error::ImageError;
use crate::unpack::Limits;

/// Layers under way, of all pulls of this process. Each has a thread, of which the runtime has more.
const LAYERS: usize = 256;

/// How a store behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// How much an image may unpack to.
    pub limits: Limits,
    /// How many layers of an image are downloaded and unpacked at a time. It is no limit over all images: one whose registry
    /// hangs is not to hold up the others.
    pub parallel_layers: usize,
    /// Give a registry up that was waited for so long without progress (64 KiB, or a finished part); `None` is never.
    pub progress_timeout: Option<Duration>,
    /// Mirrors, certificates and headers of registries: `<host>/hosts.toml` or `_default/hosts.toml`, as containerd has
    /// them.
    pub registry_dir: Option<PathBuf>,
    /// How long complete layers of a pull that failed are kept for the next try.
    pub grace: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            parallel_layers: 4,
            progress_timeout: Some(Duration::from_secs(300)),
            registry_dir: None,
            grace: Duration::from_secs(3600),
        }
    }
}

/// Images on disk. Cheap to clone; several processes may open one directory. Dropping the last clone waits until what it
/// pulled and imported is on the disk.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    options: StoreOptions,
    layers: Arc<Semaphore>,
    turns: Turns,
    settler: Settler,
}

impl Store {
    /// Opens the store in a directory, making it if it isn't there, and sweeps what killed processes left behind.
    /// Blocking.
    ///
    /// # Errors
    /// The directory can't be made or used, or its index is damaged.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        Self::open_with(root, StoreOptions::default())
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self, ImageError> {
        let root = std::path::absolute(root).map_err(|e| ImageError::io("find", root, &e))?;
        let layout = Layout::create(&root)?;
        sweep::sweep(&layout, options.grace)?;
        let layers = Arc::new(Semaphore::new(LAYERS));
        let settler = Settler::new(&layout);
        if Index::load(&layout)?
            .images
            .values()
            .any(|record| record.unsettled.is_some())
        {
            // Of a process that was killed before it came to it.
            settler.wake();
        }
        Ok(Self {
            inner: Arc::new(Inner {
                layout,
                options,
                layers,
                turns: Turns::default(),
                settler,
            }),
        })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    pub(crate) fn settler(&self) -> &Settler {
        &self.inner.settler
    }

    /// Slots for layers under way.
    pub(crate) fn layers(&self) -> &Arc<Semaphore> {
        &self.inner.layers
    }

    /// The right to get a layer.
    pub(crate) fn turns(&self) -> &Turns {
        &self.inner.turns
    }

    pub(crate) fn begin(&self) -> Result<Operation, ImageError> {
        Operation::begin(self.layout())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}
