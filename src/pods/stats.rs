//! `berth stats`: what pods use.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use berth_kubelet::standalone::{Caller, Meter, Selector, Usage, View, binary_bytes, table, terminal_size};
use clap::Args;

use super::{caller, on_this_thread, which};
use crate::print::note;
use crate::root::Root;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what running containers use, again and again
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// The pods: NAME or NAMESPACE/NAME; without one, all of them
    #[arg(value_name = "POD")]
    pods: Vec<String>,

    /// The pods' namespace; without pods, all of it
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Those with such labels: app=web,tier!=front or 'tier in (a, b)'
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "pods")]
    selector: Option<Selector>,

    /// Once; processor time is what is used in a second
    #[arg(long)]
    no_stream: bool,

    /// table, json, yaml, jsonpath=… or custom-columns=…; other than a table is printed once
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,
}

/// Shows it.
pub(crate) fn stats(args: &StatsArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let once = args.no_stream || args.output != View::Table;
    on_this_thread(async {
        let mut meter = Meter::default();
        let mut lines = look(args, &caller, &mut meter).await?;
        loop {
            tokio::time::sleep(INTERVAL).await;
            lines = match look(args, &caller, &mut meter).await {
                Ok(new) => new,
                Err(_) if !once => lines,
                Err(error) => return Err(error),
            };
            if print(args, &lines).inspect_err(note).is_err() || once {
                return Ok(ExitCode::SUCCESS);
            }
        }
    })?
}

async fn look(args: &StatsArgs, caller: &Caller, meter: &mut Meter) -> Result<Vec<Usage>, String> {
    let (places, namespace) = (caller.places(), args.namespace.as_deref());
    let pods = which::names(places, &args.pods, args.selector.as_ref(), namespace)?;
    // One that is named has to be there.
    for pod in pods.iter().filter(|_| !args.pods.is_empty()) {
        places.pod(pod).map_err(|error| error.to_string())?;
    }
    meter.look(caller, &pods).await.map_err(|error| error.to_string())
}

fn print(args: &StatsArgs, lines: &[Usage]) -> io::Result<()> {
    let value = |line: &Usage| match args.output {
        // As it is named to other commands: a pod's name, and then a container's.
        View::Name => Some(serde_json::json!({
            "metadata": { "namespace": line.namespace, "name": format!("{}/{}", line.pod, line.container) },
        })),
        _ => serde_json::to_value(line).ok(),
    };
    let values: Vec<_> = lines.iter().filter_map(value).collect();
    if let Some(text) = args.output.print("container", &values, false) {
        return io::stdout().write_all(text.as_bytes());
    }
    let header = [
        "POD",
        "CONTAINER",
        "CPU",
        "MEMORY / LIMIT",
        "LAYER",
        "NET IN / OUT",
        "PIDS",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(lines.iter().map(row));
    let mut text = table(&rows);
    if !args.no_stream
        && io::stdout().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
    {
        text = in_place(&text, terminal_size());
    }
    io::stdout().write_all(text.as_bytes())?;
    io::stdout().flush()
}

/// A table that is written over the one before: nothing is erased first, so that nothing flickers, and what does not fit
/// is left out, so that nothing scrolls.
fn in_place(table: &str, size: Option<(u16, u16)>) -> String {
    let (columns, rows) = size.map_or((usize::MAX, usize::MAX), |(columns, rows)| {
        (usize::from(columns), usize::from(rows).saturating_sub(1).max(2))
    });
    let count = table.lines().count();
    let mut text = "\x1b[H".to_owned();
    let line = |text: &mut String, line: &str| {
        text.extend(line.chars().take(columns));
        text.push_str("\x1b[K\n");
    };
    let fits = count <= rows;
    for one in table.lines().take(if fits { rows } else { rows - 1 }) {
        line(&mut text, one);
    }
    if !fits {
        line(&mut text, &format!("… and {} more", count - (rows - 1)));
    }
    text.push_str("\x1b[J");
    text
}

fn row(line: &Usage) -> Vec<String> {
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), binary_bytes);
    let limit = line.memory_limit.and_then(|limit| u64::try_from(limit).ok());
    vec![
        format!("{}/{}", line.namespace, line.pod),
        line.container.clone(),
        line.milli_cpu
            .map_or_else(|| "-".to_owned(), |milli| format!("{milli}m")),
        format!("{} / {}", bytes(line.memory), bytes(limit)),
        bytes(line.layer),
        format!("{} / {}", bytes(line.received), bytes(line.sent)),
        line.processes
            .map_or_else(|| "-".to_owned(), |count| count.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_to_the_window() {
        let table = "HEAD LONG\none two\nthree\nfour\n";
        assert_eq!(
            in_place(table, None),
            "\x1b[HHEAD LONG\x1b[K\none two\x1b[K\nthree\x1b[K\nfour\x1b[K\n\x1b[J"
        );
        assert_eq!(
            in_place(table, Some((6, 4))),
            "\x1b[HHEAD L\x1b[K\none tw\x1b[K\n… and \x1b[K\n\x1b[J"
        );
    }
}
