//! How far images are: a bar for each layer, or, where nobody watches, a line for each.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use berth_images::{LayerState, PullProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::text::{bytes, short_id};

/// How often a bar is drawn though nothing comes.
const TICK: Duration = Duration::from_millis(200);

pub(super) struct Bars {
    terminal: bool,
    quiet: bool,
    all: MultiProgress,
    layers: Mutex<HashMap<String, Line>>,
    begun: Instant,
}

struct Line {
    bar: ProgressBar,
    state: LayerState,
    /// Bytes, as they come.
    total: u64,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self {
            terminal,
            quiet,
            all: MultiProgress::new(),
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
        let known = layers.get(&at.layer).map(|line| line.state);
        let line = layers.entry(at.layer.clone()).or_insert_with(|| Line {
            bar: self.bar(&at.layer, at.total),
            state: at.state,
            total: at.total,
        });
        line.state = at.state;
        if self.terminal {
            line.bar.set_position(at.done);
            line.bar.set_message(message(at));
            if matches!(at.state, LayerState::Complete | LayerState::Exists) {
                // How fast it came is no news any more.
                style(&line.bar, AT_REST);
                line.bar.finish();
            }
        } else if known != Some(at.state) && at.state != LayerState::Waiting {
            eprintln!("{} {} {}", short_id(&at.layer), message(at), bytes(at.total));
        }
    }

    /// Takes the bars away, and says what came how fast.
    pub(super) fn finish(&self) {
        let _ = self.all.clear();
        let layers = self
            .layers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let came = layers.values().filter(|line| line.state == LayerState::Complete);
        let total: u64 = came.map(|line| line.total).sum();
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

    fn bar(&self, layer: &str, total: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = self.all.add(ProgressBar::new(total));
        style(&bar, COMING);
        bar.set_prefix(short_id(layer));
        bar.enable_steady_tick(TICK);
        bar
    }
}

const COMING: &str =
    "{prefix} {bar:30} {decimal_bytes:>10}/{decimal_total_bytes:<10} {decimal_bytes_per_sec:>11}  {msg}";
const AT_REST: &str = "{prefix} {bar:30} {decimal_bytes:>10}/{decimal_total_bytes:<10} {msg:>11}";

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

fn message(at: &PullProgress) -> &'static str {
    match at.state {
        LayerState::Waiting => "waiting",
        LayerState::Fetching if at.done >= at.total => "unpacking",
        LayerState::Fetching => "fetching",
        LayerState::Complete => "complete",
        LayerState::Exists => "is here already",
    }
}
