//! Commands on the pods of this node, whoever runs them; one file for each.

mod apply;
mod attach;
mod caller;
mod cp;
mod debug;
mod events;
mod exec;
mod inspect;
mod logs;
mod port_forward;
mod ps;
mod pulls;
mod restart;
mod stats;
mod status;
mod stop;
mod top;
mod wait;
mod which;

use berth_kubelet::defaults::DEFAULT_NAMESPACE;
use berth_kubelet::standalone::{CallError, Finished};
use clap::Args;

pub(crate) use apply::{ApplyArgs, ValidateArgs, apply, validate};
pub(crate) use attach::{AttachArgs, attach};
pub(crate) use caller::{caller, host, host_with, places};
pub(crate) use cp::{CpArgs, cp};
pub(crate) use debug::{DebugArgs, debug};
pub(crate) use events::{EventsArgs, events};
pub(crate) use exec::{ExecArgs, exec};
pub(crate) use inspect::{InspectArgs, inspect};
pub(crate) use logs::{LogsArgs, logs};
pub(crate) use port_forward::{PortForwardArgs, port_forward};
pub(crate) use ps::{PsArgs, ps};
pub(crate) use pulls::{show_first_pulls, show_pulls_again};
pub(crate) use restart::{RestartArgs, restart};
pub(crate) use stats::{StatsArgs, stats};
pub(crate) use status::{StatusArgs, status};
pub(crate) use stop::{RmArgs, StopArgs, rm, stop};
pub(crate) use top::{TopArgs, top};
pub(crate) use wait::{WaitArgs, wait};

/// Which pod.
#[derive(Args, Debug)]
pub(crate) struct PodArg {
    /// The pod: NAME, NAMESPACE/NAME or pod/NAME
    #[arg(value_name = "POD")]
    pod: String,

    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl PodArg {
    /// The pod as the node's commands take it.
    fn name(&self) -> String {
        in_namespace(&self.pod, self.namespace.as_deref())
    }
}

/// A pod's name with the namespace that was given apart. One of another namespace is not in that, and won't be found there.
fn in_namespace(pod: &str, namespace: Option<&str>) -> String {
    let Some(namespace) = namespace else {
        return pod.to_owned();
    };
    let own = format!("{namespace}/");
    let name = ["pod/", "pods/", "po/"]
        .iter()
        .find_map(|kind| pod.strip_prefix(kind));
    let name = name.unwrap_or(pod);
    format!("{own}{}", name.strip_prefix(&own).unwrap_or(name))
}

/// A pod's name without what need not be said.
fn shown(pod: &str) -> &str {
    let name = ["pod/", "pods/", "po/"]
        .iter()
        .find_map(|kind| pod.strip_prefix(kind));
    let name = name.unwrap_or(pod);
    let short = name
        .strip_prefix(DEFAULT_NAMESPACE)
        .and_then(|rest| rest.strip_prefix('/'));
    short.unwrap_or(name)
}

/// Runs a command that waits for several things at a time.
pub(crate) fn on_this_thread<F: Future>(future: F) -> Result<F::Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("The kernel gives no event queue: {error}."))?;
    Ok(runtime.block_on(future))
}

/// What a command that has gone through a container's streams ends with: the code of what ran there; as a
/// shell's, 127 if there is no such program and 126 if it can't be executed there.
fn exit_code(finished: Result<Finished, CallError>) -> Result<u8, String> {
    match finished {
        Ok(Finished::Exited(code)) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        Ok(Finished::Interrupted(signal)) => Ok(128 + signal),
        Err(CallError::CannotRun { exit_code, message }) => {
            eprintln!("berth: {message}");
            Ok(exit_code)
        }
        Err(CallError::Lost) => {
            Err("Who runs the pod has ended, so that how the command ends can't be known.".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_may_be_given_apart() {
        for (pod, namespace, meant) in [
            ("web", None, "web"),
            ("shop/web", None, "shop/web"),
            ("web", Some("shop"), "shop/web"),
            ("pod/web", Some("shop"), "shop/web"),
            ("shop/web", Some("shop"), "shop/web"),
            ("pod/shop/web", Some("shop"), "shop/web"),
            // Never another pod than the one that is named.
            ("other/web", Some("shop"), "shop/other/web"),
        ] {
            assert_eq!(in_namespace(pod, namespace), meant, "{pod} {namespace:?}");
        }
        for (pod, short) in [
            ("web", "web"),
            ("pod/web", "web"),
            ("default/web", "web"),
            ("pod/shop/web", "shop/web"),
        ] {
            assert_eq!(shown(pod), short);
        }
    }
}
