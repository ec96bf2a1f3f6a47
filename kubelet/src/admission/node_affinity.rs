//! Whether the node is one that the pod may be on: `nodeSelector`, and what `nodeAffinity` requires. PersistentVolumes require
//! it in the same words.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::Rejection;
use crate::plan::NodeFacts;

/// The predicate's name, which is the reason.
const NODE_AFFINITY: &str = "NodeAffinity";
const WAY_OUT: &str =
    "berth run --node-labels, or berth daemon's for detached pods, says what labels the node has";

/// Why the node is none for the pod.
pub(super) fn mismatch(pod: &Pod, node: &NodeFacts) -> Option<Rejection> {
    let advice = unmet_selector(pod, node).or_else(|| unmet_affinity(pod, node))?;
    let why = "node(s) didn't match Pod's node affinity/selector";
    Some(Rejection {
        advice: Some(advice),
        ..Rejection::predicate(NODE_AFFINITY, why)
    })
}

/// The first label of `nodeSelector` that the node has not.
fn unmet_selector(pod: &Pod, node: &NodeFacts) -> Option<String> {
    let wanted = pod.spec.as_ref()?.node_selector.as_ref()?;
    let (key, value) = wanted
        .iter()
        .find(|(key, value)| node.labels.get(key) != Some(value))?;
    Some(labels_advice("the pod", &format!("{key}={value}"), key, node))
}

/// What is wrong if no term of `requiredDuringSchedulingIgnoredDuringExecution` holds.
fn unmet_affinity(pod: &Pod, node: &NodeFacts) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    unmet_terms("the pod", &required.node_selector_terms, node)
}

/// What is wrong if no term holds of what somebody requires of the node.
pub(crate) fn unmet_terms(who: &str, terms: &[NodeSelectorTerm], node: &NodeFacts) -> Option<String> {
    let mut unmet = Vec::new();
    for term in terms {
        unmet.push(unmet_rule(who, term, node)?);
    }
    let mut advice = unmet
        .into_iter()
        .next()
        .unwrap_or_else(|| "there is no term that a node could match".to_owned());
    if terms.len() > 1 {
        let _ = write!(advice, " (this is the first of {} terms)", terms.len());
    }
    Some(advice)
}

/// The first rule of a term that the node does not meet. A term without rules is met by no node.
fn unmet_rule(who: &str, term: &NodeSelectorTerm, node: &NodeFacts) -> Option<String> {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return Some("a term without rules is met by no node".to_owned());
    }
    let label = labels
        .iter()
        .find(|rule| !holds(rule, node.labels.get(&rule.key)));
    if let Some(rule) = label {
        return Some(labels_advice(who, &shown(rule), &rule.key, node));
    }
    let name = node.kubernetes_name();
    let rule = fields.iter().find(|rule| !holds(rule, Some(&name)))?;
    Some(format!(
        "{who} wants {}, and the node's name is {name}: it is for another node",
        shown(rule)
    ))
}

fn labels_advice(who: &str, wanted: &str, key: &str, node: &NodeFacts) -> String {
    let has = match node.labels.get(key) {
        Some(value) => format!("has {key}={value}"),
        None => format!("has no label {key}"),
    };
    format!("{who} wants {wanted}, and the node {has}: {WAY_OUT}")
}

/// A rule, as selectors are written.
fn shown(rule: &NodeSelectorRequirement) -> String {
    let key = &rule.key;
    let values = rule.values.as_deref().unwrap_or_default().join(",");
    match rule.operator.as_str() {
        "In" => format!("{key} in ({values})"),
        "NotIn" => format!("{key} notin ({values})"),
        "Exists" => key.clone(),
        "DoesNotExist" => format!("!{key}"),
        "Gt" => format!("{key}>{values}"),
        "Lt" => format!("{key}<{values}"),
        other => format!("{key} {other} ({values})"),
    }
}

/// Whether a rule holds for what a label or field is. What can't be compared (`Gt` of a word) never holds, as under upstream.
fn holds(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let both = || Some((number(value?)?, number(values.first()?)?));
    let among = |value: &str| values.iter().any(|one| one == value);
    match rule.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => value.is_none_or(|value| !among(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => both().is_some_and(|(has, than)| has > than),
        "Lt" => both().is_some_and(|(has, than)| has < than),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::NodeLabels;
    use crate::testing::pod;

    fn node() -> NodeFacts {
        let said = "disktype=ssd,cores=8,zone=".parse().unwrap();
        NodeFacts {
            name: "Machine".to_owned(),
            labels: NodeLabels::of_machine("machine", &said),
            ..NodeFacts::default()
        }
    }

    fn advice(fields: &str) -> Option<String> {
        let rejection = mismatch(&pod(&format!(r#"{{"containers":[],{fields}}}"#)), &node())?;
        assert_eq!(rejection.reason, "NodeAffinity");
        assert_eq!(
            rejection.message,
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        );
        rejection.advice
    }

    fn affinity(terms: &str) -> String {
        format!(
            r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{terms}]}}}}}}"#
        )
    }

    #[test]
    fn every_label_of_a_selector_is_wanted() {
        for (selector, unmet) in [
            ("", None),
            (r#""disktype":"ssd""#, None),
            (r#""kubernetes.io/os":"linux","disktype":"ssd","zone":"""#, None),
            (
                r#""disktype":"hdd""#,
                Some("the pod wants disktype=hdd, and the node has disktype=ssd: "),
            ),
            (
                r#""disktype":"ssd","gpu":"yes""#,
                Some("the pod wants gpu=yes, and the node has no label gpu: "),
            ),
            (
                r#""none":"""#,
                Some("the pod wants none=, and the node has no label none: "),
            ),
        ] {
            let found = advice(&format!(r#""nodeSelector":{{{selector}}}"#));
            assert_eq!(
                found,
                unmet.map(|unmet| format!("{unmet}{WAY_OUT}")),
                "{selector}"
            );
        }
    }

    #[test]
    fn operators_compare_as_upstream_s() {
        for (key, operator, values, expected) in [
            ("disktype", "In", r#"["hdd","ssd"]"#, true),
            ("disktype", "In", r#"["hdd"]"#, false),
            ("none", "In", r#"["hdd"]"#, false),
            ("none", "In", r#"[""]"#, false),
            ("zone", "In", r#"[""]"#, true),
            ("disktype", "NotIn", r#"["hdd"]"#, true),
            ("disktype", "NotIn", r#"["hdd","ssd"]"#, false),
            ("none", "NotIn", r#"["hdd"]"#, true),
            ("zone", "Exists", "[]", true),
            ("none", "Exists", "[]", false),
            ("zone", "DoesNotExist", "[]", false),
            ("none", "DoesNotExist", "[]", true),
            ("cores", "Gt", r#"["7"]"#, true),
            ("cores", "Gt", r#"["8"]"#, false),
            ("cores", "Lt", r#"["9"]"#, true),
            ("cores", "Lt", r#"["8"]"#, false),
            ("cores", "Gt", r#"["few"]"#, false),
            ("disktype", "Gt", r#"["7"]"#, false),
            ("none", "Lt", r#"["7"]"#, false),
            ("cores", "Near", r#"["8"]"#, false),
        ] {
            let term = format!(
                r#"{{"matchExpressions":[{{"key":"{key}","operator":"{operator}","values":{values}}}]}}"#
            );
            let found = advice(&affinity(&term));
            assert_eq!(found.is_none(), expected, "{key} {operator} {values}: {found:?}");
        }
    }

    #[test]
    fn one_term_is_enough_and_all_of_its_rules_are_wanted() {
        let rule = |value: &str| format!(r#"{{"key":"disktype","operator":"In","values":["{value}"]}}"#);
        let cores = r#"{"key":"cores","operator":"Gt","values":["20"]}"#;
        let name = |operator: &str, value: &str| {
            format!(
                r#""matchFields":[{{"key":"metadata.name","operator":"{operator}","values":["{value}"]}}]"#
            )
        };
        let term = |rules: &str, more: &str| format!(r#"{{"matchExpressions":[{rules}]{more}}}"#);
        let (ssd, hdd) = (rule("ssd"), rule("hdd"));
        for (terms, unmet) in [
            (term(&ssd, ""), None),
            (format!("{},{}", term(&hdd, ""), term(&ssd, "")), None),
            (term(&ssd, &format!(",{}", name("In", "machine"))), None),
            (format!("{{{}}}", name("NotIn", "other")), None),
            (format!("{{}},{}", term(&ssd, "")), None),
            ("{}".to_owned(), Some("a term without rules is met by no node")),
            (
                term("", r#","matchFields":[]"#),
                Some("a term without rules is met by no node"),
            ),
            (
                format!("{},{}", term(&hdd, ""), term(cores, "")),
                Some("the pod wants disktype in (hdd), and the node has disktype=ssd: "),
            ),
            (
                term(&format!("{ssd},{cores}"), ""),
                Some("the pod wants cores>20, and the node has cores=8: "),
            ),
            (
                term(&ssd, &format!(",{}", name("In", "other"))),
                Some("the pod wants metadata.name in (other), and the node's name is machine: "),
            ),
            (
                format!("{{{}}}", name("NotIn", "machine")),
                Some("the pod wants metadata.name notin (machine), and the node's name is machine: "),
            ),
        ] {
            match (advice(&affinity(&terms)), unmet) {
                (None, None) => {}
                (Some(found), Some(unmet)) => assert!(found.starts_with(unmet), "{terms}: {found}"),
                (found, unmet) => panic!("{terms}: {found:?}, not {unmet:?}"),
            }
        }
        let several = advice(&affinity(&format!("{},{{}}", term(&hdd, "")))).unwrap();
        assert!(several.ends_with("(this is the first of 2 terms)"), "{several}");
    }

    #[test]
    fn selector_and_affinity_are_both_wanted_and_preferences_are_not() {
        let ssd = affinity(r#"{"matchExpressions":[{"key":"disktype","operator":"Exists"}]}"#);
        assert_eq!(
            advice(&format!(r#""nodeSelector":{{"disktype":"ssd"}},{ssd}"#)),
            None
        );
        assert!(advice(&format!(r#""nodeSelector":{{"disktype":"hdd"}},{ssd}"#)).is_some());
        let preferred = r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,
            "preference":{"matchExpressions":[{"key":"none","operator":"Exists"}]}}]}}"#;
        assert_eq!(advice(preferred), None);
    }
}
