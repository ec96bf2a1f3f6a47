//! `berth image prune`

use std::io::{self, Write};
use std::time::Duration;

use berth_images::{Collected, Store, Unwanted};
use berth_kubelet::standalone::parse_duration;

use super::Failure;
use super::text::{ago, bytes, short_id};

#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also images that have a name; without, only those whose name another image has taken
    #[arg(short, long)]
    all: bool,
    /// Only images that no container used, and that did not come, in this time: `90m`, `24h`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0", hide_default_value = true)]
    older_than: Duration,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Removes images that no container uses.
pub(super) fn run(store: &Store, args: &PruneArgs, pinned: Vec<String>) -> Result<(), Failure> {
    let which = Unwanted {
        named: args.all,
        unused_for: args.older_than,
        pinned,
        ..Unwanted::default()
    };
    let images = if args.dry_run {
        store.unwanted(&which)?
    } else {
        store.collect(&which)?
    };
    let (deleted, freed) = if args.dry_run {
        ("would delete", "would free")
    } else {
        ("deleted", "freed")
    };
    let mut out = io::stdout().lock();
    for image in &images {
        let Collected { names, freed, .. } = image;
        let name = names.first().map_or("<none>", String::as_str);
        let (id, size, used) = (short_id(&image.id), bytes(*freed), ago(image.last_used));
        writeln!(out, "{deleted} {id} {name} ({size}, last used {used} ago)")?;
    }
    let total = images.iter().map(|image| image.freed).sum();
    writeln!(out, "{freed} {}", bytes(total))?;
    Ok(())
}
