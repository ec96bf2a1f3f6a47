//! `berth image inspect`

use std::io::{self, Write};

use berth_images::{Image, ImageError, Store};
use berth_kubelet::standalone::View;
use serde_json::{Value, json};

use super::{Failure, required};

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Names, ids, or the beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// How to print: json (a list, as docker's), yaml, name, jsonpath=… or custom-columns=…; jsonpath and yaml have one image as
    /// itself
    #[arg(short, long, value_name = "FORMAT", default_value = "json")]
    output: View,
}

pub(super) fn run(store: &Store, args: &InspectArgs) -> Result<(), Failure> {
    let all = args
        .images
        .iter()
        .map(|name| describe(store, &required(store, name)?))
        .collect::<Result<Vec<Value>, Failure>>()?;
    if args.output == View::Json {
        // A bare list, as podman and docker print it.
        writeln!(io::stdout(), "{:#}", Value::Array(all))?;
        return Ok(());
    }
    let Some(text) = args.output.print("image", &all, true) else {
        let why = "`berth image inspect` has no table; `berth image ls` has.";
        return Err(Failure::Configuration(why.to_owned()));
    };
    write!(io::stdout(), "{text}")?;
    Ok(())
}

fn describe(store: &Store, image: &Image) -> Result<Value, Failure> {
    let leases = store.leases()?;
    let used_by: Vec<&String> = leases
        .iter()
        .filter(|(_, held)| held.contains(&image.id))
        .map(|(owner, _)| owner)
        .collect();
    Ok(json!({
        "id": image.id,
        "name": image.names.first().unwrap_or(&image.id),
        "names": image.names,
        "digests": image.digests,
        "size": image.size,
        "fetchedAt": image.fetched_at,
        "layers": store.lower_dirs(image)?,
        "usedBy": used_by,
        "manifest": document(&store.manifest(image)?, "manifest")?,
        "config": document(&store.raw_config(image)?, "configuration")?,
    }))
}

fn document(bytes: &[u8], what: &str) -> Result<Value, Failure> {
    let damaged = |e| ImageError::Io(format!("the image store is damaged: a {what} is not JSON: {e}"));
    Ok(serde_json::from_slice(bytes).map_err(damaged)?)
}
