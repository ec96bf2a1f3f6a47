//! Annotations of a Pod that berth acts on: what people ask for and the Pod's fields have no place for.
//!
//! They are checked as fields are: one that begins with `berth.dev/` and is not known, or has a value that is none, is
//! an error.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::backoff::Backoff;
use crate::duration::parse_duration;
use crate::plan::ProbeKind;
use crate::spec;

/// What the names of all of them begin with.
const PREFIX: &str = "berth.dev/";
/// How often probes are made, finer than `periodSeconds`: `250ms`, or `web=250ms,db.readiness=1500ms`.
const PROBE_PERIOD: &str = "berth.dev/probe-period";
/// The pauses between two runs of a container: `initial=1s,factor=2,max=30s,reset=1m`.
const RESTART_BACKOFF: &str = "berth.dev/restart-backoff";

/// Whether a container is killed as a whole when it has no memory left (cgroup v2): `true`, which is the default, or
/// `false`.
pub(crate) const MEMORY_OOM_GROUP: &str = "berth.dev/memory-oom-group";
/// Conditions of the pod beside the node's own, for its readiness gates: `example.com/loaded=True,warm=False`.
const CONDITIONS: &str = "berth.dev/conditions";
/// All of them.
const KNOWN: [&str; 4] = [CONDITIONS, MEMORY_OOM_GROUP, PROBE_PERIOD, RESTART_BACKOFF];

/// The shortest period of a probe.
pub const MIN_PROBE_PERIOD: Duration = Duration::from_millis(50);
/// The longest period of a probe in an annotation: what is longer needs none.
const MAX_PROBE_PERIOD: Duration = Duration::from_secs(3600);

/// Conditions that a node sets.
const NODE_CONDITIONS: [&str; 10] = [
    "AllContainersRestarting",
    "ContainersReady",
    "DisruptionTarget",
    "Initialized",
    "PodReadyToStartContainers",
    "PodResizeInProgress",
    "PodResizePending",
    "PodScheduled",
    "Ready",
    "berth.dev/OwnUsers",
];

/// A period and the probes that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Period {
    /// `None` is every container.
    container: Option<String>,
    /// `None` is every kind.
    kind: Option<ProbeKind>,
    period: Duration,
}

/// What is wrong with the annotations of a Pod: their names, and a sentence without an end.
pub fn problems(pod: &Pod) -> Vec<(String, String)> {
    let all = pod.metadata.annotations.iter().flatten();
    let problem = |name: &str, value: &str| -> Option<String> {
        match name {
            PROBE_PERIOD => match probe_periods(value) {
                Ok(periods) => periods.iter().find_map(|period| unknown_probe(pod, period)),
                Err(why) => Some(why),
            },
            RESTART_BACKOFF => Backoff::default().with(value).err(),
            MEMORY_OOM_GROUP if matches!(value, "true" | "false") => None,
            MEMORY_OOM_GROUP => Some(format!("{value:?} is not true or false")),
            CONDITIONS => parse_conditions(value).err(),
            _ => Some(format!(
                "there is no such annotation; those that there are: {}",
                KNOWN.join(", ")
            )),
        }
    };
    all.filter(|(name, _)| name.starts_with(PREFIX))
        .filter_map(|(name, value)| Some((name.clone(), problem(name, value)?)))
        .collect()
}

/// The period of a container's probe, if an annotation says it. The most particular entry counts.
pub fn probe_period(pod: &Pod, container: &str, kind: ProbeKind) -> Option<Duration> {
    let value = value(pod, PROBE_PERIOD)?;
    let periods = probe_periods(value).ok()?;
    let fits = |period: &&Period| {
        period.container.as_deref().is_none_or(|name| name == container)
            && period.kind.is_none_or(|wanted| wanted == kind)
    };
    let best = periods
        .iter()
        .filter(fits)
        .max_by_key(|period| (period.container.is_some(), period.kind.is_some()))?;
    Some(best.period)
}

/// Two pods have other periods of probes.
pub(crate) fn probe_periods_differ(one: &Pod, other: &Pod) -> bool {
    value(one, PROBE_PERIOD) != value(other, PROBE_PERIOD)
}

/// The pauses between two runs of the pod's containers: the node's, but for what an annotation says.
pub fn restart_backoff(pod: &Pod, node: Backoff) -> Backoff {
    value(pod, RESTART_BACKOFF).map_or(node, |value| node.with(value).unwrap_or(node))
}

/// Whether a container of the pod is killed as a whole when it has no memory left.
pub fn memory_oom_group(pod: &Pod) -> bool {
    value(pod, MEMORY_OOM_GROUP) != Some("false")
}

/// Conditions that the pod's annotation sets, with their status (`True`, `False` or `Unknown`).
pub fn conditions(pod: &Pod) -> Vec<(String, String)> {
    let set = value(pod, CONDITIONS).and_then(|value| parse_conditions(value).ok());
    set.unwrap_or_default()
}

fn parse_conditions(value: &str) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = Vec::new();
    for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, status) = entry
            .split_once('=')
            .ok_or_else(|| format!("{entry:?} is not like example.com/loaded=True"))?;
        if !matches!(status, "True" | "False" | "Unknown") {
            return Err(format!("{status:?} is not True, False or Unknown"));
        }
        if NODE_CONDITIONS.contains(&name) {
            return Err(format!("{name} is a condition that berth sets"));
        }
        if all.iter().any(|(known, _)| known == name) {
            return Err(format!("{name:?} is there twice"));
        }
        all.push((name.to_owned(), status.to_owned()));
    }
    Ok(all)
}

fn value<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn probe_periods(value: &str) -> Result<Vec<Period>, String> {
    value
        .split(',')
        .map(|entry| probe_period_entry(entry.trim()))
        .collect()
}

fn probe_period_entry(entry: &str) -> Result<Period, String> {
    let (target, text) = entry.split_once('=').unwrap_or(("", entry));
    let (container, kind) = target.split_once('.').unwrap_or((target, ""));
    let kind = match kind {
        "" => None,
        "startup" => Some(ProbeKind::Startup),
        "readiness" => Some(ProbeKind::Readiness),
        "liveness" => Some(ProbeKind::Liveness),
        other => return Err(format!("{other:?} is not startup, readiness or liveness")),
    };
    let period = parse_duration(text)?;
    if !(MIN_PROBE_PERIOD..=MAX_PROBE_PERIOD).contains(&period) {
        return Err(format!("{text:?} is not between 50ms and 1h"));
    }
    let container = (!container.is_empty()).then(|| container.to_owned());
    Ok(Period {
        container,
        kind,
        period,
    })
}

/// The entry names a probe that the pod does not have.
fn unknown_probe(pod: &Pod, period: &Period) -> Option<String> {
    let name = period.container.as_deref()?;
    let Some((container, _)) = spec::container(pod, name) else {
        return Some(format!("the pod has no container {name:?}"));
    };
    let probes = [
        (ProbeKind::Startup, "startup", container.startup_probe.is_some()),
        (
            ProbeKind::Readiness,
            "readiness",
            container.readiness_probe.is_some(),
        ),
        (
            ProbeKind::Liveness,
            "liveness",
            container.liveness_probe.is_some(),
        ),
    ];
    let mut wanted = probes
        .iter()
        .filter(|(kind, ..)| period.kind.is_none_or(|wanted| wanted == *kind));
    if wanted.any(|(_, _, there)| *there) {
        return None;
    }
    let kind = probes.iter().find(|(kind, ..)| Some(*kind) == period.kind);
    let kind = kind.map_or(String::new(), |(_, kind, _)| format!("{kind} "));
    Some(format!("container {name:?} has no {kind}probe"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::pod;

    fn annotated(name: &str, value: &str) -> Pod {
        let mut pod = pod(
            r#"{"containers":[{"name":"web","image":"i","readinessProbe":{"exec":{}},"livenessProbe":{"exec":{}}},
                {"name":"db","image":"i"}]}"#,
        );
        pod.metadata.annotations = Some(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        pod
    }

    #[test]
    fn the_most_particular_period_counts() {
        let pod = annotated(PROBE_PERIOD, "2s, web=250ms,web.liveness=1m");
        let millis = |container, kind| probe_period(&pod, container, kind).map(|period| period.as_millis());
        assert_eq!(millis("web", ProbeKind::Readiness), Some(250));
        assert_eq!(millis("web", ProbeKind::Liveness), Some(60_000));
        assert_eq!(millis("db", ProbeKind::Liveness), Some(2000));
        assert_eq!(problems(&pod), []);
        let one = annotated(PROBE_PERIOD, "web.liveness=1m");
        assert_eq!(probe_period(&one, "web", ProbeKind::Readiness), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (name, value, problem) in [
            (PROBE_PERIOD, "10ms", "\"10ms\" is not between 50ms and 1h"),
            (
                PROBE_PERIOD,
                "soon",
                "\"soon\" is no duration; examples are 90s, 5m and 1h30m",
            ),
            (
                PROBE_PERIOD,
                "web.life=1s",
                "\"life\" is not startup, readiness or liveness",
            ),
            (PROBE_PERIOD, "wob=1s", "the pod has no container \"wob\""),
            (
                PROBE_PERIOD,
                "web.startup=1s",
                "container \"web\" has no startup probe",
            ),
            (PROBE_PERIOD, "db=1s", "container \"db\" has no probe"),
            (
                RESTART_BACKOFF,
                "initial=5",
                "\"5\" is no duration; examples are 90s, 5m and 1h30m",
            ),
            (MEMORY_OOM_GROUP, "no", "\"no\" is not true or false"),
            (CONDITIONS, "Ready=True", "Ready is a condition that berth sets"),
            (CONDITIONS, "a=yes", "\"yes\" is not True, False or Unknown"),
            (
                "berth.dev/probe-periods",
                "1s",
                "there is no such annotation; those that there are: berth.dev/conditions, berth.dev/memory-oom-group, \
                 berth.dev/probe-period, berth.dev/restart-backoff",
            ),
        ] {
            assert_eq!(
                problems(&annotated(name, value)),
                [(name.to_owned(), problem.to_owned())],
                "{name}={value}"
            );
        }
        assert_eq!(problems(&annotated("example.dev/x", "?")), []);
    }
}
