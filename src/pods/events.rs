//! `berth events`: what happened to pods.

use std::io::{self, Write};
use std::process::ExitCode;

use berth_kubelet::harmless;
use berth_kubelet::standalone::{EventLine, short_age};
use clap::Args;
use jiff::Timestamp;

use super::{in_namespace, on_this_thread, places};
use crate::root::Root;

/// Show what happened to pods
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// The pod: NAME or NAMESPACE/NAME; without it, all of them
    pod: Option<String>,

    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Go on with what happens from now on
    #[arg(short, long, visible_short_alias = 'w', visible_alias = "watch")]
    follow: bool,

    /// A table, or a line of JSON for each event
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints events.
pub(crate) fn events(args: &EventsArgs, root: &Root) -> Result<ExitCode, String> {
    let pod = args
        .pod
        .as_deref()
        .map(|pod| in_namespace(pod, args.namespace.as_deref()));
    if args.output == Output::Table {
        println!(
            "{:<10} {:<8} {:<24} {:<32} MESSAGE",
            "LAST SEEN", "TYPE", "REASON", "OBJECT"
        );
    }
    let print = |event: EventLine| {
        let written = match args.output {
            Output::Table => writeln!(io::stdout(), "{}", row(&event, args.follow)),
            Output::Json => writeln!(
                io::stdout(),
                "{}",
                serde_json::to_string(&event).unwrap_or_default()
            ),
        };
        // A reader that has seen enough is no failure.
        written.is_ok()
    };
    let places = places(root);
    on_this_thread(async { places.events(pod.as_deref(), args.follow, print).await })?
        .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn row(event: &EventLine, follow: bool) -> String {
    let when = if follow {
        event.time.strftime("%H:%M:%S").to_string()
    } else {
        let age = Timestamp::now().duration_since(event.time);
        short_age(age.try_into().unwrap_or_default())
    };
    let container = event
        .container
        .as_deref()
        .map_or_else(String::new, |name| format!("/{name}"));
    let object = format!("pod/{}{container}", event.pod);
    harmless::line(&format!(
        "{when:<10} {:<8} {:<24} {object:<32} {}",
        event.kind, event.reason, event.message
    ))
}
