//! `berth image rm`

use std::io::{self, Write};

use berth_images::Store;

use super::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Names, ids, or the beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Also if containers use it; its layers then stay until the last of them is gone
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(store: &Store, args: &RemoveArgs) -> Result<(), Failure> {
    for name in &args.images {
        let removed = store.remove(name, args.force)?;
        let mut out = io::stdout();
        for name in &removed.untagged {
            writeln!(out, "untagged {name}")?;
        }
        if let Some(id) = &removed.deleted {
            writeln!(out, "deleted {id}")?;
        }
    }
    Ok(())
}
