//! Room for what a pod requests, beside the node's other pods.

use super::preemption::Missing;
use super::{Rejection, Share};
use crate::plan::NodeFacts;
use crate::requests::Requests;

/// What `status.reason` of a pod begins with for which there is no room.
const OUT_OF: &str = "OutOf";

/// Why there is no room for a pod among others, if there is none, with upstream's words.
#[cfg(test)]
fn missing(requests: &Requests, node: &NodeFacts, others: &[Share]) -> Option<Rejection> {
    let lack = lacking(requests, node, others).into_iter().next()?;
    Some(lack.rejection())
}

/// A resource of which there is not enough.
pub(super) struct Lack {
    resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    /// The rejection for it.
    pub(super) fn rejection(&self) -> Rejection {
        let message = not_enough(&self.resource, self.requested, self.used, self.capacity);
        Rejection::new(format!("{OUT_OF}{}", self.resource), message)
    }

    /// How much would be enough.
    pub(super) fn missing(&self) -> Missing {
        Missing {
            resource: self.resource.clone(),
            amount: self
                .requested
                .saturating_add(self.used)
                .saturating_sub(self.capacity),
        }
    }
}

/// What there is not enough of, in upstream's order.
pub(super) fn lacking(requests: &Requests, node: &NodeFacts, others: &[Share]) -> Vec<Lack> {
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let used = others
        .iter()
        .fold(Requests::default(), |sum, share| sum.plus(&share.requests));
    let pods = node.max_pods.map(|most| Lack {
        resource: "pods".to_owned(),
        requested: 1,
        used: count,
        capacity: i64::from(most),
    });
    let first = ["cpu", "memory", "ephemeral-storage"];
    let known = first.map(|name| (name, requests.get(name)));
    let rest = requests.iter().filter(|(name, _)| !first.contains(name));
    let asked = known.into_iter().filter(|(_, asks)| *asks > 0).chain(rest);
    let resources = asked.filter_map(|(name, requested)| {
        Some(Lack {
            resource: name.to_owned(),
            requested,
            used: used.get(name),
            capacity: node.capacity(name)?,
        })
    });
    pods.into_iter()
        .chain(resources)
        .filter(|lack| lack.requested.saturating_add(lack.used) > lack.capacity)
        .collect()
}

/// The sentence that upstream has for it.
pub(crate) fn not_enough(resource: &str, requested: i64, used: i64, capacity: i64) -> String {
    format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn reason<const N: usize>(requests: [(&str, i64); N], others: Requests) -> Option<(String, String)> {
        let node = NodeFacts {
            cpu_capacity: 2000,
            memory_capacity: 1000,
            huge_pages: [("2MB".to_owned(), 4 << 20)].into(),
            extended_resources: "example.com/dongle=2".parse().unwrap(),
            ..NodeFacts::default()
        };
        let others = Share {
            requests: others,
            ..Share::of(Arc::default())
        };
        let found = missing(&requests.into(), &node, &[others])?;
        Some((found.reason, found.message))
    }

    #[test]
    fn what_all_request_together_has_to_be_there() {
        let none = Requests::default;
        assert_eq!(reason([("cpu", 2000), ("memory", 1000)], none()), None);
        assert_eq!(
            reason([("cpu", 1500)], [("cpu", 500), ("memory", 9000)].into()),
            None
        );
        let (word, message) = reason([("cpu", 1500)], [("cpu", 501)].into()).unwrap();
        assert_eq!(word, "OutOfcpu");
        assert_eq!(
            message,
            "Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000"
        );
        let word = |requests| reason(requests, none()).map(|(word, _)| word);
        assert_eq!(
            word([("memory", 1001), ("cpu", 3000)]).as_deref(),
            Some("OutOfcpu")
        );
        assert_eq!(
            word([("memory", 1001), ("a.b/c", 1)]).as_deref(),
            Some("OutOfmemory")
        );
        assert_eq!(
            word([("ephemeral-storage", i64::MAX), ("cpu", 1)]),
            None,
            "it is not known"
        );
        assert_eq!(
            word([("hugepages-2Mi", 4 << 20), ("example.com/dongle", 2)]),
            None
        );
        assert_eq!(
            word([("hugepages-2Mi", 6 << 20), ("cpu", 1)]).as_deref(),
            Some("OutOfhugepages-2Mi")
        );
        assert_eq!(
            word([("hugepages-1Gi", 1 << 30), ("cpu", 1)]).as_deref(),
            Some("OutOfhugepages-1Gi")
        );
        assert_eq!(
            word([("example.com/dongle", 3), ("cpu", 1)]).as_deref(),
            Some("OutOfexample.com/dongle")
        );
        assert_eq!(
            word([("example.com/other", 1), ("cpu", 1)]).as_deref(),
            Some("OutOfexample.com/other")
        );
        assert_eq!(
            reason([("cpu", i64::MAX)], [("cpu", i64::MAX)].into())
                .map(|(word, _)| word)
                .as_deref(),
            Some("OutOfcpu")
        );
    }

    #[test]
    fn pods_are_counted_whatever_they_request() {
        let has = |max_pods, others: usize| {
            let node = NodeFacts {
                max_pods,
                ..NodeFacts::default()
            };
            let others = vec![Share::of(Arc::default()); others];
            missing(&Requests::default(), &node, &others).map(|found| (found.reason, found.message))
        };
        assert_eq!(has(None, 1000), None);
        assert_eq!(has(Some(3), 2), None);
        let message = "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3";
        assert_eq!(
            has(Some(3), 3),
            Some(("OutOfpods".to_owned(), message.to_owned()))
        );
    }
}
