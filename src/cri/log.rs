//! The daemon's own log, to standard error.

use tracing::level_filters::LevelFilter;

use super::config::{Format, Level, Log};

/// Begins to log. Called once.
pub(super) fn begin(config: &Log) {
    let level = match config.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match config.format {
        Format::Text => log.init(),
        Format::Json => log.json().init(),
    }
}
