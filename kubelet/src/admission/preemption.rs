//! Which pods have to end so that a critical one has room.

use k8s_openapi::api::core::v1::Pod;

use super::Share;
use crate::defaults::SYSTEM_CRITICAL_PRIORITY;
use crate::identity::PodUid;
use crate::qos::{QosClass, qos_class};

/// What there is too little of: a resource, and how much of it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) resource: String,
    pub(super) amount: i64,
}

/// The pod is so important that others have to make room for it. Under upstream each pod from a file is; here only those are that
/// say so by their priority, as otherwise each pod would displace those of others.
pub(super) fn is_critical(pod: &Pod) -> bool {
    priority(pod).is_some_and(|priority| priority >= SYSTEM_CRITICAL_PRIORITY)
}

fn priority(pod: &Pod) -> Option<i32> {
    pod.spec.as_ref()?.priority
}

/// The pod may have the other one end for itself (Preemptable).
fn may_displace(pod: &Pod, other: &Pod) -> bool {
    let more = || Some(priority(pod)? > priority(other)?);
    is_critical(pod) && !is_critical(other) || more().unwrap_or_default()
}

/// The pods that are to end, as upstream chooses them (getPodsToPreempt): as few as possible of the best class of quality, then of the
/// next one, and among those the ones that have about what is missing. An error is what is missing if all ended that may.
pub(super) fn victims(pod: &Pod, missing: &[Missing], others: &[Share]) -> Result<Vec<PodUid>, Vec<Missing>> {
    let of = |class| -> Vec<&Share> {
        let all = others
            .iter()
            .filter(|share| share.may_be_ended && may_displace(pod, &share.pod));
        all.filter(|share| qos_class(&share.pod) == class).collect()
    };
    let best_effort = of(QosClass::BestEffort);
    let burstable = of(QosClass::Burstable);
    let guaranteed = of(QosClass::Guaranteed);
    let all = [best_effort.clone(), burstable.clone(), guaranteed.clone()].concat();
    let never = without(missing, &all);
    if !never.is_empty() {
        return Err(never);
    }
    // Each class gives only what all pods of lesser classes, and what is chosen of better ones, leave to be missing.
    let lesser = [best_effort.clone(), burstable.clone()].concat();
    let guaranteed = nearest(guaranteed, without(missing, &lesser));
    let rest = [best_effort.clone(), guaranteed.clone()].concat();
    let burstable = nearest(burstable, without(missing, &rest));
    let rest = [burstable.clone(), guaranteed.clone()].concat();
    let best_effort = nearest(best_effort, without(missing, &rest));
    let chosen = [best_effort, burstable, guaranteed].concat();
    Ok(chosen.into_iter().map(Share::uid).collect())
}

/// What ends of a resource with a pod.
fn freed(share: &Share, resource: &str) -> i64 {
    match resource {
        "pods" => 1,
        _ => share.requests.get(resource),
    }
}

/// What is still missing once these pods have ended.
fn without(missing: &[Missing], shares: &[&Share]) -> Vec<Missing> {
    let left = missing.iter().map(|one| {
        let freed = shares.iter().map(|share| freed(share, &one.resource));
        Missing {
            amount: freed.fold(one.amount, i64::saturating_sub),
            ..one.clone()
        }
    });
    left.filter(|one| one.amount > 0).collect()
}

/// Takes pods until nothing is missing, each time the one that leaves least of it; of two that leave as much, the one that has less.
fn nearest(mut shares: Vec<&Share>, mut missing: Vec<Missing>) -> Vec<&Share> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let distances = shares.iter().map(|share| distance(&missing, share));
        let best = distances.enumerate().reduce(|best, next| {
            let fewer = || size(shares[next.0]) <= size(shares[best.0]);
            let nearer = next.1 < best.1 || (next.1 <= best.1 && fewer());
            if nearer { next } else { best }
        });
        let Some((index, _)) = best else { break };
        let share = shares.swap_remove(index);
        missing = without(&missing, &[share]);
        chosen.push(share);
    }
    chosen
}

/// How much is left of what is missing, each resource as a part of itself.
fn distance(missing: &[Missing], share: &Share) -> f64 {
    let parts = missing.iter().map(|one| {
        let left = one.amount.saturating_sub(freed(share, &one.resource)).max(0);
        left as f64 / one.amount as f64
    });
    parts.map(|part| part * part).sum()
}

/// By which upstream tells a smaller pod from a larger one.
fn size(share: &Share) -> (i64, i64) {
    (share.requests.get("memory"), share.requests.get("cpu"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A pod by its name: requests of cpu and memory, a priority, and whether its limits are its requests.
    fn share(name: &str, cpu: i64, memory: i64, priority: Option<i32>, guaranteed: bool) -> Share {
        let amounts = match (cpu, memory) {
            (0, 0) => serde_json::json!({}),
            _ => serde_json::json!({"cpu": format!("{cpu}m"), "memory": memory.to_string()}),
        };
        let field = if guaranteed { "limits" } else { "requests" };
        let resources = serde_json::json!({ field: amounts });
        let mut pod = crate::testing::pod(
            &serde_json::json!({"priority": priority, "containers": [{"name": "c", "image": "i", "resources": resources}]})
                .to_string(),
        );
        pod.metadata.uid = Some(name.to_owned());
        Share::of(Arc::new(pod))
    }

    fn chosen(cpu: i64, memory: i64, others: &[Share]) -> Result<String, Vec<Missing>> {
        let missing = [("cpu", cpu), ("memory", memory)].map(|(resource, amount)| Missing {
            resource: resource.to_owned(),
            amount,
        });
        let missing: Vec<Missing> = missing.into_iter().filter(|one| one.amount > 0).collect();
        let critical = share("critical", 0, 0, Some(SYSTEM_CRITICAL_PRIORITY), false);
        let found = victims(&critical.pod, &missing, others)?;
        Ok(found.into_iter().map(|uid| uid.0).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn lesser_classes_end_first_and_no_more_than_has_to() {
        let none = || share("none", 0, 0, None, false);
        let small = || share("small", 100, 100, None, false);
        let large = || share("large", 1000, 1000, None, false);
        let sure = || share("sure", 500, 500, None, true);
        for (cpu, memory, others, expected) in [
            (100, 0, vec![none(), large(), small(), sure()], "small"),
            (50, 50, vec![large(), small(), sure()], "small"),
            (101, 0, vec![none(), small(), large(), sure()], "large"),
            // One that is enough, though two smaller ones would be nearer together.
            (
                600,
                0,
                vec![small(), large(), share("half", 500, 500, None, false)],
                "large",
            ),
            (
                1050,
                0,
                vec![small(), large(), share("half", 500, 500, None, false)],
                "large small",
            ),
            // A guaranteed pod only if nothing else is enough, and others then as far as something is missing.
            (500, 0, vec![small(), sure()], "sure"),
            (550, 0, vec![small(), sure()], "small sure"),
            (1000, 0, vec![sure(), large()], "large"),
            // Who has less memory ends of two that are as good.
            (
                100,
                0,
                vec![share("more", 100, 300, None, false), small()],
                "small",
            ),
            // What can't be had of one resource does not count for the other.
            (
                100,
                900,
                vec![
                    share("cpu", 900, 100, None, false),
                    share("memory", 100, 900, None, false),
                ],
                "memory",
            ),
        ] {
            let names: Vec<String> = others.iter().map(|share| share.uid().0).collect();
            assert_eq!(
                chosen(cpu, memory, &others).as_deref(),
                Ok(expected),
                "{cpu} {memory} {names:?}"
            );
        }
    }

    #[test]
    fn nothing_ends_if_it_would_not_be_enough() {
        let critical = share("other", 500, 500, Some(SYSTEM_CRITICAL_PRIORITY), false);
        let foreign = Share {
            may_be_ended: false,
            ..share("foreign", 500, 500, None, false)
        };
        let missing = |amount| {
            Err(vec![Missing {
                resource: "cpu".to_owned(),
                amount,
            }])
        };
        assert_eq!(chosen(200, 0, &[critical]), missing(200));
        assert_eq!(chosen(200, 0, &[foreign]), missing(200));
        assert_eq!(
            chosen(200, 0, &[share("small", 50, 0, None, false)]),
            missing(150)
        );
        assert_eq!(chosen(200, 0, &[]), missing(200));
    }

    #[test]
    fn who_may_displace_whom() {
        let pod = |priority| share("p", 0, 0, priority, false).pod;
        for (own, other, expected) in [
            (Some(SYSTEM_CRITICAL_PRIORITY), None, true),
            (
                Some(SYSTEM_CRITICAL_PRIORITY),
                Some(SYSTEM_CRITICAL_PRIORITY - 1),
                true,
            ),
            (
                Some(SYSTEM_CRITICAL_PRIORITY),
                Some(SYSTEM_CRITICAL_PRIORITY),
                false,
            ),
            (
                Some(SYSTEM_CRITICAL_PRIORITY + 1000),
                Some(SYSTEM_CRITICAL_PRIORITY),
                true,
            ),
            (
                Some(SYSTEM_CRITICAL_PRIORITY),
                Some(SYSTEM_CRITICAL_PRIORITY + 1000),
                false,
            ),
        ] {
            assert_eq!(
                may_displace(&pod(own), &pod(other)),
                expected,
                "{own:?} {other:?}"
            );
        }
        assert!(is_critical(&pod(Some(SYSTEM_CRITICAL_PRIORITY))));
        assert!(!is_critical(&pod(Some(SYSTEM_CRITICAL_PRIORITY - 1))));
        assert!(!is_critical(&pod(None)));
    }

    #[test]
    fn the_number_of_pods_is_a_resource_too() {
        let missing = [Missing {
            resource: "pods".to_owned(),
            amount: 1,
        }];
        let critical = share("critical", 0, 0, Some(SYSTEM_CRITICAL_PRIORITY), false);
        let others = [
            share("large", 10, 10, None, false),
            share("none", 0, 0, None, false),
        ];
        let found = victims(&critical.pod, &missing, &others).unwrap();
        assert_eq!(found, [PodUid("none".to_owned())]);
    }
}
