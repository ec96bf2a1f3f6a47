//! How far an image is: a bar for each layer, or, where nobody watches, a line for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use berth_images::{LayerState, PullProgress};
use berth_kubelet::pulls::ComingLayer;
use berth_kubelet::standalone::Bars;

use super::text::{bytes, short_id};

pub(super) struct Progress {
    quiet: bool,
    /// On a terminal.
    bars: Option<Arc<Bars>>,
    /// What is happening to each layer, and how many bytes it has as it comes.
    layers: Mutex<HashMap<String, (LayerState, u64)>>,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            bars: Bars::on_terminal(),
            layers: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// A line on standard error.
    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    pub(super) fn update(&self, at: &PullProgress) {
        if self.quiet {
            return;
        }
        let mut layers = self
            .layers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = layers.insert(at.layer.clone(), (at.state, at.total));
        let layer = ComingLayer {
            layer: at.layer.clone(),
            done: at.done,
            total: at.total,
            state: at.state,
        };
        match &self.bars {
            // Which image it is has been said.
            Some(bars) => bars.layer("", &layer),
            None if known.map(|(state, _)| state) != Some(at.state) && at.state != LayerState::Waiting => {
                eprintln!(
                    "{} {} {}",
                    short_id(&at.layer),
                    layer.what_happens(),
                    bytes(at.total)
                );
            }
            None => {}
        }
    }

    /// Takes the bars away, and says what came how fast.
    pub(super) fn finish(&self) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
        let layers = self
            .layers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let came = layers
            .values()
            .filter(|(state, _)| *state == LayerState::Complete);
        let total: u64 = came.map(|(_, total)| total).sum();
        if total > 0 {
            let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is for people"
            )]
            let rate = (total as f64 / seconds) as u64;
            self.say(&format!(
                "fetched {} in {seconds:.1}s ({}/s)",
                bytes(total),
                bytes(rate)
            ));
        }
    }
}
