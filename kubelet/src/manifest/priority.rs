//! PriorityClasses of manifests, and the priorities that pods have by them.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::Diagnostic;
use super::loader::{Loader, Place};
use super::support::Kind;
use crate::defaults::SYSTEM_PRIORITY_CLASSES;
use crate::validation;

const PREEMPTS: &str = "PreemptLowerPriority";
const WAY_OUT: &str = "system-cluster-critical and system-node-critical are there; others come by documents of kind PriorityClass \
                       (scheduling.k8s.io/v1)";

/// What a class gives a pod.
struct Given<'a> {
    class: Option<&'a str>,
    priority: i32,
    preemption_policy: &'a str,
}

/// What is wrong with a pod's priority: the field, upstream's words, and what to do.
struct Wrong {
    path: &'static str,
    message: String,
    hint: &'static str,
}

impl Loader<'_> {
    pub(super) fn priority_class(&mut self, place: Place<'_>) {
        let before = self.errors.len();
        let stripped = self.refuse(place, Kind::PriorityClass);
        let place = Place {
            node: stripped.as_ref().unwrap_or(place.node),
            ..place
        };
        let Some(class) = self.decode::<PriorityClass>(place) else {
            return;
        };
        let name = class.metadata.name.as_deref();
        self.note_name(place, "PriorityClass", Some(""), name);
        if self.errors.len() == before {
            self.broken_rules(place, validation::validate_priority_class(&class));
        }
        let other = self
            .priority_classes
            .iter()
            .find(|known| is_default(known) && is_default(&class));
        if let Some(other) = other.and_then(|other| other.metadata.name.as_deref()) {
            let message = format!(
                "Forbidden: PriorityClass {other} is already marked as default. Only one default can exist"
            );
            let line = place.node.line_of("globalDefault");
            self.errors.push(place.diagnostic(line, "globalDefault", message));
        }
        self.priority_classes.push(class);
    }

    /// Gives pods the priorities of their classes.
    pub(super) fn resolve_priorities(&mut self) {
        let mut found: Vec<Diagnostic> = Vec::new();
        for (place, (_, pod)) in self.pods.iter().zip(&mut self.manifest.pods) {
            let place = Place {
                file: &place.file,
                node: &place.node,
                prefix: &place.prefix,
            };
            if let Err(Wrong { path, message, hint }) = resolve(pod, &self.priority_classes) {
                let mut diagnostic = place.diagnostic(place.node.line_of(path), path, message);
                hint.clone_into(&mut diagnostic.hint);
                found.push(diagnostic);
            }
        }
        found
            .into_iter()
            .for_each(|diagnostic| self.report_unless_lenient(diagnostic));
    }
}

fn is_default(class: &PriorityClass) -> bool {
    class.global_default == Some(true)
}

/// As the API server's admission plugin does it. A priority without any class is taken as it is, as a kubelet does for pods from files.
fn resolve(pod: &mut Pod, classes: &[PriorityClass]) -> Result<(), Wrong> {
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    let Some(given) = given(spec, classes)? else {
        return Ok(());
    };
    let Given { priority, .. } = given;
    if let Some(own) = spec.priority.filter(|own| *own != priority) {
        return Err(Wrong {
            path: "spec.priority",
            message: format!(
                "Forbidden: the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
                 computed {priority} from the given PriorityClass name"
            ),
            hint: "leave it out, or the class",
        });
    }
    let policy = given.preemption_policy;
    if let Some(own) = spec.preemption_policy.as_deref().filter(|own| *own != policy) {
        return Err(Wrong {
            path: "spec.preemptionPolicy",
            message: format!(
                "Forbidden: the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            ),
            hint: "leave it out, or the class",
        });
    }
    let (class, policy) = (given.class.map(str::to_owned), policy.to_owned());
    spec.priority_class_name = class;
    spec.priority = Some(priority);
    spec.preemption_policy = Some(policy);
    Ok(())
}

/// What the class of a pod gives it: the one that it names, or the default one. `None` without either.
fn given<'a>(spec: &PodSpec, classes: &'a [PriorityClass]) -> Result<Option<Given<'a>>, Wrong> {
    let of = |class: &'a PriorityClass| Given {
        class: class.metadata.name.as_deref(),
        priority: class.value.unwrap_or_default(),
        preemption_policy: class.preemption_policy.as_deref().unwrap_or(PREEMPTS),
    };
    let Some(name) = spec
        .priority_class_name
        .as_deref()
        .filter(|name| !name.is_empty())
    else {
        return Ok(classes.iter().find(|class| is_default(class)).map(of));
    };
    let named = |class: &&PriorityClass| class.metadata.name.as_deref() == Some(name);
    if let Some(class) = classes.iter().find(named) {
        return Ok(Some(of(class)));
    }
    let system = SYSTEM_PRIORITY_CLASSES.iter().find(|(known, _)| *known == name);
    match system {
        Some((name, priority)) => Ok(Some(Given {
            class: Some(name),
            priority: *priority,
            preemption_policy: PREEMPTS,
        })),
        None => Err(Wrong {
            path: "spec.priorityClassName",
            message: format!("Forbidden: no PriorityClass with name {name} was found"),
            hint: WAY_OUT,
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::completeness::fields;
    use super::super::support::{is_refused_of, without_effect_of};
    use super::super::{Manifest, Options, Source, load};
    use super::*;

    const HIGH: &str = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\npreemptionPolicy: Never\n---\n";

    fn read(text: &str, lenient: bool) -> Result<Manifest, String> {
        let options = Options {
            lenient,
            node: "/n",
            ..Options::default()
        };
        load(&[Source { name: "f", text }], options).map_err(|errors| errors.to_string())
    }

    fn pod(fields: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{{name: c, image: i}}]\n{fields}"
        )
    }

    /// Class, priority and preemption policy of the only pod.
    fn priority(text: &str) -> (Option<String>, Option<i32>, Option<String>) {
        let manifest = read(text, false).unwrap();
        let spec = manifest.pods[0].1.spec.clone().unwrap();
        (spec.priority_class_name, spec.priority, spec.preemption_policy)
    }

    #[test]
    fn a_class_gives_the_priority() {
        let default = HIGH.replace("value:", "globalDefault: true\nvalue:");
        for (text, class, number, policy) in [
            (pod(""), None, None, None),
            (pod("  priority: 7\n"), None, Some(7), None),
            (
                pod("  priorityClassName: system-cluster-critical\n"),
                Some("system-cluster-critical"),
                Some(2_000_000_000),
                Some(PREEMPTS),
            ),
            (
                pod("  priorityClassName: system-node-critical\n  priority: 2000001000\n"),
                Some("system-node-critical"),
                Some(2_000_001_000),
                Some(PREEMPTS),
            ),
            (
                format!("{HIGH}{}", pod("  priorityClassName: high\n")),
                Some("high"),
                Some(1000),
                Some("Never"),
            ),
            // Wherever it is in the files.
            (
                format!("{}---\n{HIGH}", pod("  priorityClassName: high\n")),
                Some("high"),
                Some(1000),
                Some("Never"),
            ),
            (format!("{HIGH}{}", pod("")), None, None, None),
            (
                format!("{default}{}", pod("")),
                Some("high"),
                Some(1000),
                Some("Never"),
            ),
            (
                format!("{default}{}", pod("  priorityClassName: system-node-critical\n")),
                Some("system-node-critical"),
                Some(2_000_001_000),
                Some(PREEMPTS),
            ),
        ] {
            let expected = (class.map(str::to_owned), number, policy.map(str::to_owned));
            assert_eq!(priority(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_contradicts_or_is_nowhere_is_refused() {
        let default = HIGH.replace("value:", "globalDefault: true\nvalue:");
        for (text, expected) in [
            (
                pod("  priorityClassName: none\n"),
                "f:6: spec.priorityClassName: Forbidden: no PriorityClass with name none was found (system-cluster-critical and",
            ),
            (
                pod("  priorityClassName: system-node-critical\n  priority: 5\n"),
                "f:7: spec.priority: Forbidden: the integer value of priority (5) must not be provided in pod spec; priority \
                 admission controller computed 2000001000 from the given PriorityClass name (leave it out",
            ),
            (
                format!("{default}{}", pod("  priority: 5\n")),
                "spec.priority: Forbidden: the integer value of priority (5)",
            ),
            (
                format!(
                    "{HIGH}{}",
                    pod("  priorityClassName: high\n  preemptionPolicy: PreemptLowerPriority\n")
                ),
                "spec.preemptionPolicy: Forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be \
                 provided in pod spec; priority admission controller computed Never",
            ),
            (
                format!("{default}{}{}", default.replace("high", "other"), pod("")),
                "globalDefault: Forbidden: PriorityClass high is already marked as default. Only one default can exist",
            ),
            (
                format!("{HIGH}{HIGH}{}", pod("")),
                "Duplicate value: \"high\": PriorityClass high is in f:3 already",
            ),
            (
                format!("{}{}", HIGH.replace("value: 1000\n", ""), pod("")),
                "value: Required value",
            ),
            (
                format!(
                    "{}{}",
                    HIGH.replace("value: 1000", "value: 1000\nvalu: 1"),
                    pod("")
                ),
                "valu: unknown field (did you mean \"value\"?)",
            ),
        ] {
            let error = read(&text, false).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let manifest = read(&pod("  priorityClassName: none\n"), true).unwrap();
        assert_eq!(manifest.warnings.len(), 1);
    }

    #[test]
    fn a_list_of_classes_says_what_its_items_are() {
        let text = format!(
            "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClassList\nitems:\n- metadata: {{name: high}}\n  value: 3\n---\n{}",
            pod("  priorityClassName: high\n")
        );
        assert_eq!(priority(&text).1, Some(3));
    }

    #[test]
    fn no_field_of_a_class_is_ignored() {
        for (path, fields, done) in [
            (
                "",
                fields::<PriorityClass>(),
                "apiVersion kind metadata globalDefault preemptionPolicy value",
            ),
            (
                "metadata.",
                fields::<ObjectMeta>(),
                "annotations labels name namespace",
            ),
        ] {
            for field in fields {
                let path = format!("{path}{field}");
                let kind = Kind::PriorityClass;
                let in_table = is_refused_of(kind, &path) || without_effect_of(kind, &path).is_some();
                let done = done.split(' ').any(|done| done == *field);
                assert!(done != in_table, "{path}");
            }
        }
    }
}
