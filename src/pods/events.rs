//! `berth events`: what happened to pods.

use std::io::{self, Write};
use std::process::ExitCode;

use berth_kubelet::defaults::DEFAULT_NAMESPACE;
use berth_kubelet::harmless;
use berth_kubelet::standalone::{EventLine, View, short_age};
use clap::Args;
use jiff::Timestamp;

use super::{in_namespace, on_this_thread, places};
use crate::print::note;
use crate::root::Root;

/// Show what happened to pods
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// The pod: NAME or NAMESPACE/NAME; without it, all of them
    pod: Option<String>,

    /// The pod's namespace; without a pod, all of it
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Go on with what happens from now on
    #[arg(short, long, visible_short_alias = 'w', visible_alias = "watch")]
    follow: bool,

    /// table, json (a line for each event), yaml, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,
}

/// Prints events.
pub(crate) fn events(args: &EventsArgs, root: &Root) -> Result<ExitCode, String> {
    if args.output == View::Name {
        return Err(
            "Events have no names; `berth events -o jsonpath={.items[*].reason}` prints a part of each."
                .to_owned(),
        );
    }
    let pod = args
        .pod
        .as_deref()
        .map(|pod| in_namespace(pod, args.namespace.as_deref()));
    let is_table = matches!(args.output, View::Table | View::Wide);
    // A list is one when all of it is there.
    let mut list = Vec::new();
    let print = |event: EventLine| {
        if args
            .namespace
            .as_ref()
            .is_some_and(|namespace| *namespace != event.namespace)
        {
            return true;
        }
        let value = || serde_json::to_value(&event).unwrap_or_default();
        let text = match &args.output {
            View::Table | View::Wide => format!("{}\n", row(&event, args.follow)),
            View::Json => format!("{}\n", value()),
            view if args.follow => view.print("event", &[value()], true).unwrap_or_default(),
            _ => {
                list.push(value());
                return true;
            }
        };
        // A reader that has seen enough is no failure.
        io::stdout().write_all(text.as_bytes()).inspect_err(note).is_ok()
    };
    let places = places(root);
    if let Some(pod) = &pod {
        // Nothing is printed of one that is not there.
        places.pod(pod).map_err(|error| error.to_string())?;
    }
    if is_table {
        println!(
            "{:<10} {:<8} {:<24} {:<32} MESSAGE",
            "LAST SEEN", "TYPE", "REASON", "OBJECT"
        );
    }
    on_this_thread(async { places.events(pod.as_deref(), args.follow, print).await })?
        .map_err(|error| error.to_string())?;
    if !is_table && args.output != View::Json && !args.follow {
        print!("{}", args.output.print("event", &list, false).unwrap_or_default());
    }
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
    // As it is named to other commands.
    let namespace = match event.namespace.as_str() {
        DEFAULT_NAMESPACE => String::new(),
        other => format!("{other}/"),
    };
    let object = format!("pod/{namespace}{}{container}", event.pod);
    harmless::line(&format!(
        "{when:<10} {:<8} {:<24} {object:<32} {}",
        event.kind, event.reason, event.message
    ))
}
