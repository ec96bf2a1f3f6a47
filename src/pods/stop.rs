//! `berth stop` and `berth rm`: the end of pods, whoever runs them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use berth_kubelet::standalone::{self, Caller};
use clap::Args;

use super::which::Which;
use super::{caller, host, host_with, on_this_thread};
use crate::preflight;
use crate::root::{EngineOptions, Root};
use crate::runtime;

/// End pods and remove them, as Ctrl-C at their `berth run` would
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    which: Which,

    /// The pods' namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Seconds until what has not ended is killed; without it the pod's own
    #[arg(
        long,
        visible_alias = "time",
        visible_short_alias = 't',
        value_name = "SECONDS"
    )]
    grace_period: Option<u64>,

    /// Don't wait until nothing is left
    #[arg(long)]
    no_wait: bool,
}

/// Remove pods that have ended; of all, or of those with some labels, those that have
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    which: Which,

    /// The pods' namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Kill what runs
    #[arg(short, long)]
    force: bool,
}

/// Ends pods.
pub(crate) fn stop(args: &StopArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pods = args.which.names(caller.places(), args.namespace.as_deref())?;
    let ending = Ending {
        caller: &caller,
        root,
        cgroup_root,
        grace: args.grace_period.map(Duration::from_secs),
        wait: !args.no_wait,
    };
    ending.all(&pods)
}

/// Removes pods that have ended.
pub(crate) fn rm(args: &RmArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let places = caller.places();
    let mut pods = args.which.names(places, args.namespace.as_deref())?;
    if !args.which.are_named() && !args.force {
        pods.retain(|pod| places.has_ended(pod).unwrap_or(false));
    }
    if !args.force {
        for pod in &pods {
            if !places.has_ended(pod).map_err(|error| error.to_string())? {
                return Err(format!(
                    "Pod {pod} runs; `berth stop` ends it, `berth rm --force` kills it."
                ));
            }
        }
    }
    let ending = Ending {
        caller: &caller,
        root,
        cgroup_root,
        grace: args.force.then_some(Duration::ZERO),
        wait: true,
    };
    ending.all(&pods)
}

struct Ending<'a> {
    caller: &'a Caller,
    root: &'a Root,
    cgroup_root: &'a Path,
    grace: Option<Duration>,
    wait: bool,
}

impl Ending<'_> {
    /// Ends all of them, also if one can't be.
    fn all(&self, pods: &[String]) -> Result<ExitCode, String> {
        on_this_thread(async {
            let mut told = Vec::new();
            let mut failures = Vec::new();
            for pod in pods {
                match self.one(pod).await {
                    Ok(uid) => told.push((pod, uid)),
                    Err(error) => failures.push(error),
                }
            }
            for (pod, uid) in told {
                if self.wait {
                    let gone = self.caller.places().gone(&uid).await;
                    gone.map_err(|error| error.to_string())?;
                }
                println!("{pod}");
            }
            if failures.is_empty() {
                Ok(ExitCode::SUCCESS)
            } else {
                Err(failures.join("\nberth: "))
            }
        })?
    }

    async fn one(&self, pod: &str) -> Result<String, String> {
        let found = self.caller.places().pod(pod).map_err(|error| error.to_string())?;
        let uid = found.metadata.uid.unwrap_or_default();
        let told = self.caller.delete(pod, self.grace).await;
        if told.map_err(|error| error.to_string())? {
            return Ok(uid);
        }
        // Nobody runs it.
        preflight::check()?;
        // Where its record says that it is.
        let endpoint = self.caller.places().runtime_endpoint(pod);
        let host = match endpoint.map_err(|error| error.to_string())? {
            Some(endpoint) => host_with(
                self.root,
                self.cgroup_root,
                runtime::connect(&endpoint, None).await?,
            ),
            None => host(self.root, self.cgroup_root, &EngineOptions::default())?,
        };
        standalone::stop(host, pod, self.grace)
            .await
            .map_err(|error| error.to_string())?;
        Ok(uid)
    }
}
