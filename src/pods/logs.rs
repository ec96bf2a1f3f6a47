//! `berth logs`: what containers have written.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use berth_kubelet::logs::Stream;
use berth_kubelet::standalone::{LogOptions, PodLogLine, parse_duration};
use clap::Args;
use jiff::Timestamp;

use super::{PodArg, on_this_thread, places};
use crate::print::note;
use crate::root::Root;

/// Print what containers of a pod have written
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pod: PodArg,

    /// The container, as `-c` names it
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    container_name: Option<String>,

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

    /// Only the last so many lines of what there is already; -1 is all
    #[arg(long, value_name = "LINES", default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,

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
}

/// Prints logs: each line to the stream that the container wrote it to.
pub(crate) fn logs(args: &LogsArgs, root: &Root) -> Result<ExitCode, String> {
    let pod = args.pod.name();
    let since = args.since.map(|since| Timestamp::now() - since);
    let options = LogOptions {
        container: args.container_name.clone().or_else(|| args.container.clone()),
        all_containers: args.all_containers,
        previous: args.previous,
        follow: args.follow,
        tail: usize::try_from(args.tail).ok(),
        since: since.or(args.since_time),
    };
    let short = pod.rsplit_once('/').map_or(pod.as_str(), |(_, name)| name);
    let print = |line: PodLogLine| print(args, short, &line);
    let places = places(root);
    let notice = |text: &str| eprintln!("{text}");
    on_this_thread(async { places.logs(&pod, &options, notice, print).await })?
        .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn print(args: &LogsArgs, pod: &str, PodLogLine { container, line }: &PodLogLine) -> io::Result<()> {
    let mut text = Vec::with_capacity(line.text.len() + 64);
    if args.prefix {
        text.extend_from_slice(format!("[pod/{pod}/{container}] ").as_bytes());
    }
    if args.timestamps {
        text.extend_from_slice(line.time.as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(&line.text);
    text.push(b'\n');
    let written = match line.stream {
        Stream::Stdout => io::stdout().write_all(&text),
        Stream::Stderr => io::stderr().write_all(&text),
    };
    written.inspect_err(note)
}
