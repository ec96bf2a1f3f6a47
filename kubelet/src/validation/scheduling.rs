//! The rules for what a scheduler reads. Here nothing is scheduled, but who moves a pod to a cluster learns of a mistake
//! before that.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use super::claim::selector;
use super::{Errors, names};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_OPERATOR: &str = "not a valid selector operator";

pub(super) fn scheduling(spec: &PodSpec, errors: &mut Errors) {
    let subdomains = [
        ("spec.nodeName", &spec.node_name),
        ("spec.serviceAccountName", &spec.service_account_name),
        ("spec.priorityClassName", &spec.priority_class_name),
    ];
    for (path, name) in subdomains {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.check(path, name, names::dns_subdomain(name));
        }
    }
    errors.one_of(
        "spec.preemptionPolicy",
        spec.preemption_policy.as_deref(),
        &["Never", "PreemptLowerPriority"],
    );
    for (key, value) in spec.node_selector.iter().flatten() {
        errors.check("spec.nodeSelector", key, names::qualified_name(key));
        errors.check("spec.nodeSelector", value, names::label_value(value));
    }
    gates(spec, errors);
    for (index, one) in spec.tolerations.iter().flatten().enumerate() {
        toleration(one, &format!("spec.tolerations[{index}]"), errors);
    }
    if let Some(found) = &spec.affinity {
        affinity(found, errors);
    }
    let spreads = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (index, one) in spreads.iter().enumerate() {
        let path = format!("spec.topologySpreadConstraints[{index}]");
        spread(one, &path, errors);
        let is_twice = |other: &TopologySpreadConstraint| {
            (&other.topology_key, &other.when_unsatisfiable) == (&one.topology_key, &one.when_unsatisfiable)
        };
        if spreads[..index].iter().any(is_twice) {
            let both = format!("{{{}, {}}}", one.topology_key, one.when_unsatisfiable);
            errors.duplicate(&format!("{path}.{{topologyKey, whenUnsatisfiable}}"), &both);
        }
    }
}

fn gates(spec: &PodSpec, errors: &mut Errors) {
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in gates.iter().enumerate() {
        let path = format!("spec.schedulingGates[{index}].name");
        errors.check(&path, &gate.name, names::qualified_name(&gate.name));
        if gates[..index].contains(gate) {
            errors.duplicate(&path, &gate.name);
        }
    }
    if !gates.is_empty() && spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        errors.forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

fn spread(spread: &TopologySpreadConstraint, path: &str, errors: &mut Errors) {
    const POSITIVE: &str = "must be greater than zero";
    if spread.max_skew <= 0 {
        errors.invalid_number(&format!("{path}.maxSkew"), spread.max_skew, POSITIVE);
    }
    topology_key(&spread.topology_key, path, errors);
    let when = spread.when_unsatisfiable.as_str();
    errors.one_of(
        &format!("{path}.whenUnsatisfiable"),
        Some(when),
        &["DoNotSchedule", "ScheduleAnyway"],
    );
    if let Some(domains) = spread.min_domains {
        let path = format!("{path}.minDomains");
        if domains <= 0 {
            errors.invalid_number(&path, domains, POSITIVE);
        } else if when != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
            errors.invalid_number(&path, domains, why);
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &spread.node_affinity_policy),
        ("nodeTaintsPolicy", &spread.node_taints_policy),
    ];
    for (name, policy) in policies {
        errors.one_of(&format!("{path}.{name}"), policy.as_deref(), &["Honor", "Ignore"]);
    }
    if let Some(found) = &spread.label_selector {
        selector(found, &format!("{path}.labelSelector"), errors);
    }
    let keys = spread.match_label_keys.as_deref().unwrap_or_default();
    let path = format!("{path}.matchLabelKeys");
    if !keys.is_empty() && spread.label_selector.is_none() {
        errors.forbidden(&path, "must not be specified when labelSelector is not set");
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        errors.check(&format!("{path}[{index}]"), key, names::qualified_name(key));
    }
}

fn topology_key(key: &str, path: &str, errors: &mut Errors) {
    let path = format!("{path}.topologyKey");
    if key.is_empty() {
        errors.required(&path, "can not be empty");
    } else {
        errors.check(&path, key, names::qualified_name(key));
    }
}

fn toleration(toleration: &Toleration, path: &str, errors: &mut Errors) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
    let operator_path = format!("{path}.operator");
    if key.is_empty() && operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&operator_path, &operator, why);
    }
    if !key.is_empty() {
        errors.check(&format!("{path}.key"), &key, names::qualified_name(&key));
    }
    match operator.as_str() {
        "" | "Equal" => errors.check(&operator_path, &value, names::label_value(&value)),
        "Exists" if !value.is_empty() => {
            errors.invalid(
                &operator_path,
                &value,
                "value must be empty when `operator` is 'Exists'",
            );
        }
        "Exists" => {}
        other => errors.one_of(&operator_path, Some(other), &["Equal", "Exists"]),
    }
    let path = format!("{path}.effect");
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path, &effect, why);
    }
    let known = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
    errors.one_of(
        &path,
        Some(&effect).filter(|e| !e.is_empty()).map(String::as_str),
        &known,
    );
}

fn affinity(affinity: &Affinity, errors: &mut Errors) {
    if let Some(node) = &affinity.node_affinity {
        node_affinity(node, errors);
    }
    let near = affinity.pod_affinity.as_ref().map(|pods| {
        let required = pods
            .required_during_scheduling_ignored_during_execution
            .as_deref();
        (
            required,
            pods.preferred_during_scheduling_ignored_during_execution
                .as_deref(),
        )
    });
    let far = affinity.pod_anti_affinity.as_ref().map(|pods| {
        let required = pods
            .required_during_scheduling_ignored_during_execution
            .as_deref();
        (
            required,
            pods.preferred_during_scheduling_ignored_during_execution
                .as_deref(),
        )
    });
    for (name, terms) in [("podAffinity", near), ("podAntiAffinity", far)] {
        let Some((required, preferred)) = terms else {
            continue;
        };
        let path = format!("spec.affinity.{name}");
        for (index, term) in required.unwrap_or_default().iter().enumerate() {
            pod_term(term, &format!("{path}.{REQUIRED}[{index}]"), errors);
        }
        for (index, one) in preferred.unwrap_or_default().iter().enumerate() {
            let WeightedPodAffinityTerm {
                weight: number,
                pod_affinity_term,
            } = one;
            let path = format!("{path}.{PREFERRED}[{index}]");
            weight(*number, &path, errors);
            pod_term(pod_affinity_term, &format!("{path}.podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: i32, path: &str, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid_number(&format!("{path}.weight"), weight, "must be in the range 1-100");
    }
}

fn node_affinity(affinity: &NodeAffinity, errors: &mut Errors) {
    let path = "spec.affinity.nodeAffinity";
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        node_terms(
            &required.node_selector_terms,
            &format!("{path}.{REQUIRED}"),
            errors,
        );
    }
    let preferred = affinity
        .preferred_during_scheduling_ignored_during_execution
        .iter()
        .flatten();
    for (index, one) in preferred.enumerate() {
        let path = format!("{path}.{PREFERRED}[{index}]");
        weight(one.weight, &path, errors);
        node_term(
            &one.preference,
            Values::Any,
            &format!("{path}.preference"),
            errors,
        );
    }
}

/// The rules for what a pod, or a PersistentVolume, requires of its node.
pub(super) fn node_terms(terms: &[NodeSelectorTerm], path: &str, errors: &mut Errors) {
    let path = format!("{path}.nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, Values::OfLabels, &format!("{path}[{index}]"), errors);
    }
}

/// What may be compared with a node's labels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    /// What a label can have.
    OfLabels,
    /// Anything: a preference that is never met does no harm.
    Any,
}

fn node_term(term: &NodeSelectorTerm, values: Values, path: &str, errors: &mut Errors) {
    for (index, rule) in term.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        label_rule(rule, &path, errors);
        for (index, value) in rule.values.iter().flatten().enumerate() {
            if values == Values::OfLabels {
                errors.check(
                    &format!("{path}.values[{index}]"),
                    value,
                    names::label_value(value),
                );
            }
        }
    }
    for (index, rule) in term.match_fields.iter().flatten().enumerate() {
        field_rule(rule, &format!("{path}.matchFields[{index}]"), errors);
    }
}

fn label_rule(rule: &NodeSelectorRequirement, path: &str, errors: &mut Errors) {
    let count = rule.values.as_ref().map_or(0, Vec::len);
    let values = format!("{path}.values");
    match rule.operator.as_str() {
        "In" | "NotIn" if count == 0 => {
            errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&values, why);
        }
        "Gt" | "Lt" if count != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.required(&values, why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&format!("{path}.operator"), other, NO_OPERATOR),
    }
    errors.check(
        &format!("{path}.key"),
        &rule.key,
        names::qualified_name(&rule.key),
    );
}

fn field_rule(rule: &NodeSelectorRequirement, path: &str, errors: &mut Errors) {
    let values = rule.values.as_deref().unwrap_or_default();
    match rule.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&format!("{path}.values"), why);
        }
        other => errors.invalid(&format!("{path}.operator"), other, NO_OPERATOR),
    }
    if rule.key != "metadata.name" {
        let why = "not a valid field selector key";
        return errors.invalid(&format!("{path}.key"), &rule.key, why);
    }
    for (index, value) in values.iter().enumerate() {
        errors.check(
            &format!("{path}.values[{index}]"),
            value,
            names::dns_subdomain(value),
        );
    }
}

fn pod_term(term: &PodAffinityTerm, path: &str, errors: &mut Errors) {
    let selectors = [
        ("labelSelector", &term.label_selector),
        ("namespaceSelector", &term.namespace_selector),
    ];
    for (name, found) in selectors {
        if let Some(found) = found {
            selector(found, &format!("{path}.{name}"), errors);
        }
    }
    for (index, name) in term.namespaces.iter().flatten().enumerate() {
        errors.check(
            &format!("{path}.namespaces[{index}]"),
            name,
            names::dns_label(name),
        );
    }
    label_keys(term, path, errors);
    topology_key(&term.topology_key, path, errors);
}

fn label_keys(term: &PodAffinityTerm, path: &str, errors: &mut Errors) {
    let same = term.match_label_keys.as_deref().unwrap_or_default();
    let other = term.mismatch_label_keys.as_deref().unwrap_or_default();
    for (name, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        let path = format!("{path}.{name}");
        if !keys.is_empty() && term.label_selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            errors.check(&format!("{path}[{index}]"), key, names::qualified_name(key));
        }
    }
    for (index, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let path = format!("{path}.matchLabelKeys[{index}]");
        errors.invalid(&path, key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

#[cfg(test)]
mod tests {
    use crate::defaulting::default_pod;
    use crate::testing::pod;
    use crate::validation::validate_pod;

    /// The fields that are wrong, without what they all begin with.
    fn wrong(spreads: &str) -> Vec<String> {
        let spec =
            format!(r#"{{"containers":[{{"name":"c","image":"i"}}],"topologySpreadConstraints":{spreads}}}"#);
        let mut pod = pod(&spec);
        default_pod(&mut pod);
        let errors = validate_pod(&pod);
        let path = |path: &str| path.replace("spec.topologySpreadConstraints", "");
        errors.iter().map(|error| path(&error.path)).collect()
    }

    #[test]
    fn constraints_of_spread() {
        let good = r#"{"maxSkew":1,"topologyKey":"a/z","whenUnsatisfiable":"DoNotSchedule","minDomains":2,
            "labelSelector":{"matchLabels":{"a":"b"}},"matchLabelKeys":["c"],"nodeTaintsPolicy":"Honor"}"#;
        assert_eq!(wrong(&format!("[{good}]")), [""; 0]);
        let other = good.replace("a/z", "y");
        assert_eq!(
            wrong(&format!("[{good},{other},{good}]")),
            ["[2].{topologyKey, whenUnsatisfiable}"]
        );
        let bad = r#"{"maxSkew":0,"topologyKey":"","whenUnsatisfiable":"Never","minDomains":1,"nodeAffinityPolicy":"No"}"#;
        let fields = [
            "maxSkew",
            "topologyKey",
            "whenUnsatisfiable",
            "minDomains",
            "nodeAffinityPolicy",
        ];
        assert_eq!(
            wrong(&format!("[{bad}]")),
            fields.map(|field| format!("[0].{field}"))
        );
        let bad = r#"{"maxSkew":1,"topologyKey":"z","whenUnsatisfiable":"DoNotSchedule","minDomains":0,"matchLabelKeys":["c"]}"#;
        assert_eq!(
            wrong(&format!("[{bad}]")),
            ["[0].minDomains", "[0].matchLabelKeys"]
        );
    }
}
