//! `berth logs`: what containers have written.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use berth_kubelet::logs::Stream;
use berth_kubelet::standalone::{LogOptions, PodLogLine, Selector, parse_duration};
use clap::Args;
use jiff::Timestamp;

use super::{on_this_thread, places, which};
use crate::print::note;
use crate::root::Root;

/// How many of the last lines there are of each container where pods are selected by labels, as with kubectl.
const TAIL_OF_SELECTED: i64 = 10;

/// Print what containers of pods have written
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The pod: NAME, NAMESPACE/NAME or pod/NAME
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,

    /// The container, as `-c` names it
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    container_name: Option<String>,

    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// The pods with such labels: app=web,tier!=front or 'tier in (a, b)'
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with_all = ["pod", "container_name"])]
    selector: Option<Selector>,

    /// Which container; without it that of the annotation kubectl.kubernetes.io/default-container, or the first
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_containers")]
    container: Option<String>,

    /// All containers, init containers first
    #[arg(long)]
    all_containers: bool,

    /// Go on with what is written from now on, also after restarts, until no container is to run again
    #[arg(short, long, conflicts_with = "previous")]
    follow: bool,

    /// What the container before the last restart has written
    #[arg(short, long)]
    previous: bool,

    /// Only the last so many lines of what there is already; -1 is all, as without it, and 10 with --selector
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,

    /// Only what was written so short a time ago: 10s, 5m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "since_time")]
    since: Option<Duration>,

    /// Only what was written since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<Timestamp>,

    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,

    /// Begin each line with the pod and the container
    #[arg(long)]
    prefix: bool,

    /// Only so many bytes of each container, cut off in the middle of a line; 0 is all
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    limit_bytes: u64,

    /// Follow at most so many containers of the pods with such labels
    #[arg(long, value_name = "NUMBER", default_value = "5")]
    max_log_requests: NonZeroUsize,
}

/// Prints logs: each line to the stream that the container wrote it to.
pub(crate) fn logs(args: &LogsArgs, root: &Root) -> Result<ExitCode, String> {
    let places = places(root);
    let pods = which::names(
        &places,
        args.pod.as_slice(),
        args.selector.as_ref(),
        args.namespace.as_deref(),
    )?;
    let since = args.since.map(|since| Timestamp::now() - since);
    let is_selected = args.selector.is_some();
    let tail = args
        .tail
        .unwrap_or(if is_selected { TAIL_OF_SELECTED } else { -1 });
    let options = LogOptions {
        container: args.container_name.clone().or_else(|| args.container.clone()),
        all_containers: args.all_containers,
        previous: args.previous,
        follow: args.follow,
        tail: usize::try_from(tail).ok(),
        since: since.or(args.since_time),
        timestamps: args.timestamps,
        limit_bytes: Some(args.limit_bytes).filter(|bytes| *bytes > 0),
        most_followed: is_selected.then_some(args.max_log_requests),
    };
    let print = |line: PodLogLine| print(args.prefix, &line);
    let notice = |text: &str| eprintln!("{text}");
    on_this_thread(async { places.logs(&pods, &options, notice, print).await })?
        .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn print(prefix: bool, line: &PodLogLine) -> io::Result<()> {
    let mut text = Vec::with_capacity(line.text.len() + 64);
    if prefix {
        text.extend_from_slice(format!("[pod/{}/{}] ", line.pod, line.container).as_bytes());
    }
    text.extend_from_slice(&line.text);
    let written = match line.stream {
        Stream::Stdout => io::stdout().write_all(&text),
        Stream::Stderr => io::stderr().write_all(&text),
    };
    written.inspect_err(note)
}
