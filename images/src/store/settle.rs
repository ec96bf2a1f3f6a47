//! Getting images onto the disk, without keeping anybody waiting for it.
//!
//! syncfs(2) takes as long as all that anybody wrote lately. So an image is used as soon as it is complete, and its record
//! says on which start of the machine its files may still be in memory only. Once they are on the disk, the record is
//! settled. After a loss of power before that, the image is not there, and is pulled again.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::fs::syncfs;

use super::index::Index;
use super::layout::Layout;
use crate::error::ImageError;

/// The thread that settles images. Dropping it waits until all are settled.
#[derive(Debug)]
pub(crate) struct Settler {
    layout: Layout,
    thread: Mutex<Option<JoinHandle<()>>>,
    wanted: Arc<AtomicBool>,
}

impl Settler {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
            thread: Mutex::default(),
            wanted: Arc::default(),
        }
    }

    /// Has the images that were added until now settled soon.
    pub(crate) fn wake(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            // It looks again before it ends, or is waked by the next image, or by the next start.
            return;
        }
        let (layout, wanted) = (self.layout.clone(), Arc::clone(&self.wanted));
        let work = move || {
            while wanted.swap(false, Ordering::SeqCst) {
                // What fails stays unsettled: at worst, the image is pulled again.
                let _ = settle(&layout);
            }
        };
        *thread = Builder::new().name("images-sync".to_owned()).spawn(work).ok();
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn settle(layout: &Layout) -> Result<(), ImageError> {
    let unsettled: Vec<(String, u64)> = Index::load(layout)?
        .images
        .into_iter()
        .filter(|(_, record)| record.unsettled.is_some())
        .map(|(id, record)| (id, record.fetched_at))
        .collect();
    if unsettled.is_empty() {
        return Ok(());
    }
    write_back(layout.root())?;
    Index::update(layout, |index| {
        for (id, fetched_at) in &unsettled {
            if let Some(record) = index
                .images
                .get_mut(id)
                .filter(|record| record.fetched_at == *fetched_at)
            {
                record.unsettled = None;
            }
        }
        Ok(())
    })
}

fn write_back(root: &Path) -> Result<(), ImageError> {
    File::open(root)
        .and_then(|file| syncfs(&file).map_err(Into::into))
        .map_err(|e| ImageError::io("write to the disk", root, &e))
}
