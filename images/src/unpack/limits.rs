//! How much an image may unpack to.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much one image may unpack to. Past it, the image is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers, uncompressed.
    pub max_bytes: u64,
    /// Files, directories and links of all layers.
    pub max_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 30,
            max_entries: 1_000_000,
        }
    }
}

/// What is left of an image's limits. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes: Arc<AtomicU64>,
    entries: Arc<AtomicU64>,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: Arc::default(),
            entries: Arc::default(),
        }
    }

    fn take_bytes(&self, n: u64) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
    }

    /// Why nothing more may be unpacked, if so.
    pub(super) fn exceeded(&self) -> Option<String> {
        let max = self.limits.max_bytes;
        let exceeded = self.bytes.load(Ordering::Relaxed) > max;
        exceeded.then(|| format!("the image unpacks to more than the allowed {max} bytes"))
    }

    pub(crate) fn take_entry(&self) -> Result<(), String> {
        if self.entries.fetch_add(1, Ordering::Relaxed) < self.limits.max_entries {
            return Ok(());
        }
        Err(format!(
            "the image has more than the allowed {} files",
            self.limits.max_entries
        ))
    }
}

/// Takes what it reads from a budget.
pub(super) struct BudgetReader<'a, R> {
    inner: R,
    budget: &'a Budget,
}

impl<'a, R> BudgetReader<'a, R> {
    pub(super) fn new(inner: R, budget: &'a Budget) -> Self {
        Self { inner, budget }
    }
}

impl<R: Read> Read for BudgetReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.budget.take_bytes(n as u64);
        self.budget
            .exceeded()
            .map_or(Ok(n), |why| Err(io::Error::other(why)))
    }
}
