//! What an operator says of the node: options of the programs that run pods.

use berth_kubelet::admission::{AllowedSysctls, ExtendedResources, NodeLabels};
use berth_kubelet::backoff::Backoff;
use berth_kubelet::standalone::Host;
use clap::{ArgGroup, Args};

use crate::root::EngineOptions;

/// Options of `berth run` and `berth daemon`. Who hands the pods to another program (an argument of the group `handed_over`) can't
/// say them, nor how logs are kept by who has another runtime keep them (`logged_elsewhere`).
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("handed_over").multiple(true), group = ArgGroup::new("logged_elsewhere").multiple(true))]
pub(crate) struct NodeArgs {
    /// Rotate a container's log when it would grow past this many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 20, conflicts_with_all = ["handed_over", "logged_elsewhere"])]
    log_max_size: u64,

    /// Keep this many log files of a container
    #[arg(long, value_name = "FILES", default_value_t = 5, conflicts_with_all = ["handed_over", "logged_elsewhere"], value_parser = clap::value_parser!(u32).range(2..))]
    log_max_files: u32,

    /// Pauses between two runs of a container, if not 10s, 20s and so on up to 5m, and none after it ran for 10m:
    /// `initial=10s,factor=2,max=5m,reset=10m`, or a part of it. A pod's annotation berth.dev/restart-backoff counts more
    #[arg(
        long,
        value_name = "PAUSES",
        conflicts_with = "handed_over",
        default_value = "initial=10s",
        hide_default_value = true
    )]
    restart_backoff: Backoff,

    /// Kernel parameters that pods may set beside the safe ones: names or `net.core.*`, with commas between them
    #[arg(
        long,
        value_name = "SYSCTLS",
        conflicts_with = "handed_over",
        default_value = "",
        hide_default_value = true
    )]
    allowed_unsafe_sysctls: AllowedSysctls,

    /// What the node has beside processors, memory and storage, for pods that request it: `example.com/dongle=2`, with commas between
    /// them. It is counted, so that no more pods run than there is for
    #[arg(
        long,
        value_name = "RESOURCES",
        conflicts_with = "handed_over",
        default_value = "",
        hide_default_value = true
    )]
    extended_resources: ExtendedResources,

    /// Labels that the node has for `nodeSelector` and `nodeAffinity` of pods, beside `kubernetes.io/hostname`, `kubernetes.io/os` and
    /// `kubernetes.io/arch`: `disktype=ssd`, with commas between them
    #[arg(
        long,
        value_name = "LABELS",
        conflicts_with = "handed_over",
        default_value = "",
        hide_default_value = true
    )]
    node_labels: NodeLabels,

    /// Take no more pods than this on together. Any number if it is not said; a kubelet has 110
    #[arg(long, value_name = "NUMBER", conflicts_with = "handed_over", value_parser = clap::value_parser!(u32).range(1..))]
    max_pods: Option<u32>,
}

impl NodeArgs {
    /// Options of the built-in engine.
    pub(crate) fn engine(&self) -> EngineOptions {
        EngineOptions {
            log_max_size: self.log_max_size,
            log_max_files: self.log_max_files,
            ..Default::default()
        }
    }

    /// The host as the operator wants it.
    pub(crate) fn applied(&self, host: Host) -> Host {
        Host {
            restart_backoff: self.restart_backoff,
            allowed_sysctls: self.allowed_unsafe_sysctls.clone(),
            extended_resources: self.extended_resources.clone(),
            node_labels: self.node_labels.clone(),
            max_pods: self.max_pods,
            ..host
        }
    }
}
