//! How images come, on a terminal: a line for each image, and below it a bar for each layer.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_cri::LayerState;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::harmless;
use crate::pulls::{Coming, ComingLayer, Frames};

/// How often a bar is drawn though nothing comes.
const TICK: Duration = Duration::from_millis(200);
const IMAGE: &str = "{msg}";
const FETCHED: &str =
    "{prefix} {bar:30} {decimal_bytes:>10}/{decimal_total_bytes:<10} {decimal_bytes_per_sec:>11}  {msg}";
const AT_REST: &str = "{prefix} {bar:30} {decimal_bytes:>10}/{decimal_total_bytes:<10} {msg:>11}";

/// Bars on standard error. Whoever else writes to the terminal does it [`around`](Self::around) them.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    images: Mutex<HashMap<String, OfImage>>,
}

#[derive(Debug, Default)]
struct OfImage {
    /// The image's name; none where somebody else has said it.
    head: Option<ProgressBar>,
    layers: HashMap<String, ProgressBar>,
    last: Option<ProgressBar>,
}

impl Bars {
    /// Bars, if standard error is a terminal that can draw them.
    pub fn on_terminal() -> Option<Arc<Self>> {
        let draws = io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        draws.then(|| {
            Arc::new(Self {
                all: MultiProgress::new(),
                images: Mutex::default(),
            })
        })
    }

    /// Draws what comes to this process, until nobody is there any more who pulls.
    pub(super) async fn show_frames(&self, mut frames: Frames) {
        while let Some(now) = frames.next().await {
            self.show(&now);
        }
    }

    /// Draws what another process tells that comes to it, as often as it tells that.
    pub(super) async fn follow(&self, mut coming: watch::Receiver<Coming>) {
        loop {
            let now = coming.borrow_and_update().clone();
            self.show(&now);
            if coming.changed().await.is_err() {
                return;
            }
        }
    }

    /// Draws these images and no others.
    pub fn show(&self, coming: &Coming) {
        let mut images = self.images();
        for (image, layers) in coming.images() {
            let of = images.entry(image.to_owned()).or_insert_with(|| {
                let head = self.all.add(ProgressBar::new(0));
                style(&head, IMAGE);
                head.set_message(harmless::line(image));
                head.tick();
                OfImage {
                    last: Some(head.clone()),
                    head: Some(head),
                    ..OfImage::default()
                }
            });
            layers.iter().for_each(|layer| self.draw(of, layer));
        }
        images.retain(|image, of| {
            let stays = coming.images().any(|(coming, _)| coming == image);
            if !stays {
                self.take_away(of);
            }
            stays
        });
    }

    /// Draws a layer of an image whose name somebody else has said.
    pub fn layer(&self, image: &str, layer: &ComingLayer) {
        self.draw(self.images().entry(image.to_owned()).or_default(), layer);
    }

    /// Writes while no bar is in the way.
    pub fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.images().is_empty() {
            write()
        } else {
            self.all.suspend(write)
        }
    }

    /// Takes all bars away.
    pub fn clear(&self) {
        let mut images = self.images();
        images.values().for_each(|of| self.take_away(of));
        images.clear();
        // There may be no terminal any more.
        let _ = self.all.clear();
    }

    fn draw(&self, of: &mut OfImage, layer: &ComingLayer) {
        let known = of.layers.get(&layer.layer).cloned();
        let bar = known.unwrap_or_else(|| {
            let bar = match &of.last {
                Some(last) => self.all.insert_after(last, ProgressBar::new(layer.total)),
                None => self.all.add(ProgressBar::new(layer.total)),
            };
            style(&bar, FETCHED);
            bar.set_prefix(short(&layer.layer));
            bar.enable_steady_tick(TICK);
            of.last = Some(bar.clone());
            of.layers.insert(layer.layer.clone(), bar.clone());
            bar
        });
        bar.set_position(layer.done);
        bar.set_message(layer.what_happens());
        if matches!(layer.state, LayerState::Complete | LayerState::Exists) && !bar.is_finished() {
            // How fast it came is no news any more.
            style(&bar, AT_REST);
            bar.finish();
        }
    }

    fn take_away(&self, of: &OfImage) {
        for bar in of.layers.values().chain(&of.head) {
            bar.finish_and_clear();
            self.all.remove(bar);
        }
    }

    fn images(&self) -> MutexGuard<'_, HashMap<String, OfImage>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ComingLayer {
    /// What happens to the layer, in a word or two.
    pub fn what_happens(&self) -> &'static str {
        match self.state {
            LayerState::Waiting => "waiting",
            LayerState::Fetching if self.done >= self.total => "unpacking",
            LayerState::Fetching => "fetching",
            LayerState::Complete => "complete",
            LayerState::Exists => "is here already",
        }
    }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// A digest's first digits.
fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}
