//! `berth image ls`

use std::io::{self, Write};

use berth_images::{Image, Store};
use berth_kubelet::standalone::View;
use serde_json::{Value, json};

use super::Failure;
use super::text::{ago, bytes, short_id};

const HEADER: [&str; 5] = ["IMAGE", "TAG", "IMAGE ID", "SIZE", "AGE"];

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// How to print: table, name, json, yaml, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,
    /// Print only the ids
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
}

pub(super) fn run(store: &Store, args: &ListArgs) -> Result<(), Failure> {
    let images = store.list()?;
    let mut out = io::stdout().lock();
    if args.quiet {
        for image in &images {
            writeln!(out, "{}", image.id)?;
        }
        return Ok(());
    }
    let all: Vec<Value> = images.iter().map(summary).collect();
    if args.output == View::Json {
        // A bare list, as podman and docker print it.
        writeln!(out, "{:#}", Value::Array(all))?;
        return Ok(());
    }
    let text = args.output.print("image", &all, false);
    write!(out, "{}", text.unwrap_or_else(|| table(&images)))?;
    Ok(())
}

fn summary(image: &Image) -> Value {
    json!({
        "id": image.id,
        "name": image.names.first().unwrap_or(&image.id),
        "names": image.names,
        "digests": image.digests,
        "manifest": image.manifest,
        "size": image.size,
        "fetchedAt": image.fetched_at,
        "lastUsed": image.last_used,
    })
}

fn table(images: &[Image]) -> String {
    let mut rows: Vec<[String; 5]> = images.iter().flat_map(rows).collect();
    rows.sort();
    rows.insert(0, HEADER.map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    for [image, tag, id, size, age] in &rows {
        let [w0, w1, w2, w3] = widths;
        text.push_str(&format!(
            "{image:w0$}   {tag:w1$}   {id:w2$}   {size:w3$}   {age}\n"
        ));
    }
    text
}

/// One for each name.
fn rows(image: &Image) -> Vec<[String; 5]> {
    let row = |name: &str, tag: &str| {
        [
            name.to_owned(),
            tag.to_owned(),
            short_id(&image.id),
            bytes(image.size),
            ago(image.fetched_at),
        ]
    };
    if image.names.is_empty() {
        let name = image
            .digests
            .first()
            .and_then(|name| name.split_once('@'))
            .map_or("<none>", |(name, _)| name);
        return vec![row(name, "<none>")];
    }
    image
        .names
        .iter()
        .map(|name| {
            name.rsplit_once(':')
                .map_or_else(|| row(name, ""), |(name, tag)| row(name, tag))
        })
        .collect()
}
