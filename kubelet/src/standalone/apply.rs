//! `berth apply`: a pod as a file says, with as little disturbance as can be.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;

use super::control::{CallError, Caller};
use super::inspect::{InspectError, Places};
use super::{detached, objects};
use crate::plan::Objects;
use crate::{qos, refers, spec};

/// How long a change of resources is waited for. One that starts containers anew may take longer.
const SETTLING: Duration = Duration::from_secs(10);

/// What is to be done, or was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// There is no such pod: the daemon runs it.
    Created,
    /// It is as the file says.
    Unchanged,
    /// These fields are changed while it runs.
    Configured(Vec<String>),
    /// These fields can't be: the pod is ended and made anew.
    Replaced(Vec<String>),
}

/// What became of other resources for a pod that runs, if it has not got them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// It will not have them as things are.
    pub failed: bool,
    /// How it stands, to come after the pod's name.
    pub message: String,
}

impl Caller {
    /// What applying this pod means.
    ///
    /// # Errors
    /// The records can't be read.
    pub async fn compare(&self, pod: &Pod, objects: &Objects) -> Result<Applied, CallError> {
        Ok(self.decide(pod, objects).await?.0)
    }

    /// What is to be done, and the ConfigMaps and Secrets that the pod has then.
    async fn decide(&self, pod: &Pod, objects: &Objects) -> Result<(Applied, Objects), CallError> {
        let record = match self.places().find(&name(pod)) {
            Ok((record, _)) => record,
            Err(InspectError::NoPod(..)) => return Ok((Applied::Created, objects.clone())),
            Err(error) => return Err(error.into()),
        };
        let applied = difference(&record.pod, pod);
        let Some(before) = self.objects_of(&record).await? else {
            return Ok((applied, objects.clone()));
        };
        let differing = objects::changed(&before, &refers::named_by(pod, objects))?;
        let changed: Vec<String> = objects::names(&differing).collect();
        let applied = match applied {
            applied if changed.is_empty() => applied,
            Applied::Replaced(fields) => Applied::Replaced(fields.into_iter().chain(changed).collect()),
            // Volumes follow; the environment is the next container's.
            Applied::Configured(fields) => Applied::Configured(fields.into_iter().chain(changed).collect()),
            _ => Applied::Configured(changed),
        };
        Ok((applied, objects::with(before, objects)))
    }

    /// Does it. `say` is told before a pod is ended to be made anew. A change of resources is waited for a little.
    ///
    /// # Errors
    /// It can't be done: the pod would have to be made anew, and a person runs it.
    pub async fn apply(
        &self,
        pod: &Pod,
        objects: &Objects,
        say: impl FnOnce(&[String]),
    ) -> Result<(Applied, Option<Unsettled>), CallError> {
        let (applied, objects) = self.decide(pod, objects).await?;
        let objects = &objects;
        let mut unsettled = None;
        match &applied {
            Applied::Unchanged => {}
            Applied::Created => drop(self.run(vec![pod.clone()], objects).await?),
            Applied::Configured(fields) => {
                let (record, _) = self.places().find(&name(pod))?;
                let mut changed = pod.clone();
                changed.metadata.uid.clone_from(&record.pod.metadata.uid);
                // As upstream: a generation is one of the specification.
                let is_spec = fields.iter().any(|field| field.starts_with("spec."));
                let generation = record.pod.metadata.generation;
                changed.metadata.generation = generation.map(|generation| generation + i64::from(is_spec));
                self.change(&name(pod), &changed, objects).await?;
                if fields.iter().any(|field| field.contains("resources.")) {
                    let generation = changed.metadata.generation.unwrap_or_default();
                    unsettled = self.places().settled(&name(pod), generation).await?;
                }
            }
            Applied::Replaced(fields) => {
                let (record, _) = self.places().find(&name(pod))?;
                let owner = self.places().owner(&record);
                if !detached::has(&self.places().kubelet_root, &record.uid()) && owner.is_some() {
                    return Err(CallError::Refused(format!(
                        "Pod {} would have to be made anew ({}), but a `berth run` in the foreground has it: stop it, and \
                         run it again.",
                        name(pod),
                        fields.join(", ")
                    )));
                }
                say(fields);
                if self.delete(&name(pod), None).await? {
                    self.places().gone(&record.uid().0).await?;
                }
                // One that nobody ran is ended by the daemon, as every predecessor.
                self.run(vec![pod.clone()], objects).await?;
            }
        }
        Ok((applied, unsettled))
    }
}

impl Places {
    /// Waits until a pod has the resources of this generation, or it is clear that it does not get them now.
    async fn settled(&self, pod: &str, generation: i64) -> Result<Option<Unsettled>, InspectError> {
        let known = self.when(pod, |pod| match unsettled(pod.status.as_ref(), generation) {
            Some(unsettled) if unsettled.message.is_empty() => None,
            known => Some(known),
        });
        let in_time = tokio::time::timeout(SETTLING, known).await;
        in_time.unwrap_or_else(|_| {
            Ok(Some(Unsettled {
                failed: false,
                message: "the resize is still in progress".to_owned(),
            }))
        })
    }
}

/// How a pod stands that was given another size: without a message it is not known yet.
fn unsettled(status: Option<&PodStatus>, generation: i64) -> Option<Unsettled> {
    let wait = Some(Unsettled {
        failed: false,
        message: String::new(),
    });
    let Some(status) = status.filter(|status| status.observed_generation >= Some(generation)) else {
        return wait;
    };
    let of = |kind: &str| {
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|condition| condition.type_ == kind && condition.status == "True")?;
        Some((
            found.reason.clone().unwrap_or_default(),
            found.message.clone().unwrap_or_default(),
        ))
    };
    if let Some((reason, message)) = of("PodResizePending") {
        return Some(Unsettled {
            failed: reason == "Infeasible",
            message: format!("the resize is {}: {message}", reason.to_lowercase()),
        });
    }
    match of("PodResizeInProgress") {
        None => None,
        Some((reason, message)) if reason == "Error" => Some(Unsettled {
            failed: true,
            message: format!("the resize fails, and is tried again: {message}"),
        }),
        Some(_) => wait,
    }
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", spec::namespace(pod), spec::name(pod))
}

/// What differs, and whether that can be changed in place. The pods are defaulted.
fn difference(before: &Pod, after: &Pod) -> Applied {
    let value = |pod: &Pod| {
        let mut pod = pod.clone();
        pod.status = None;
        pod.metadata.uid = None;
        pod.metadata.generation = None;
        // Added to the pod while it ran, and no part of what a file says.
        if let Some(spec) = &mut pod.spec {
            spec.ephemeral_containers = None;
        }
        serde_json::to_value(pod).unwrap_or(Value::Null)
    };
    let mut fields = BTreeSet::new();
    collect(&value(before), &value(after), "", &mut fields);
    if fields.is_empty() {
        return Applied::Unchanged;
    }
    let same_class = qos::qos_class(before) == qos::qos_class(after);
    let in_place = fields.iter().all(|field| {
        let is_resource = field.contains(".resources.");
        can_change(field) && (!is_resource || (same_class && is_there(&value(after), field)))
    });
    let fields = fields.into_iter().collect();
    if in_place {
        Applied::Configured(fields)
    } else {
        Applied::Replaced(fields)
    }
}

/// Of `resources`, what a running pod can have another value of.
const RESOURCES: [&str; 4] = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// Fields that a running pod can have another value of.
fn can_change(field: &str) -> bool {
    let container = field
        .strip_prefix("spec.containers[")
        .or_else(|| field.strip_prefix("spec.initContainers["))
        .and_then(|rest| rest.split_once("]."))
        .map(|(_, field)| field);
    match container {
        Some("image") => true,
        Some(field) => field
            .strip_prefix("resources.")
            .is_some_and(|resource| RESOURCES.contains(&resource)),
        None => {
            let own = field.strip_prefix("spec.resources.");
            if let Some(resource) = own {
                return RESOURCES.contains(&resource);
            }
            ["metadata.labels", "metadata.annotations"]
                .iter()
                .any(|map| field == *map || field.strip_prefix(map).is_some_and(|rest| rest.starts_with('.')))
                || matches!(
                    field,
                    "spec.terminationGracePeriodSeconds" | "spec.activeDeadlineSeconds"
                )
        }
    }
}

/// As upstream, a request or limit can't be taken away from a pod that runs.
fn is_there(pod: &Value, field: &str) -> bool {
    let pointer = field.replace(['.', '['], "/").replace(']', "");
    pod.pointer(&format!("/{pointer}")).is_some()
}

/// The paths at which two values differ.
fn collect(before: &Value, after: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let (one, other) = (one.get(key), other.get(key));
                match (one, other) {
                    (Some(one), Some(other)) => collect(one, other, &path, fields),
                    // What is new in a map or gone from it is told by its own name.
                    (Some(Value::Object(only)), None) | (None, Some(Value::Object(only)))
                        if !only.is_empty() =>
                    {
                        let empty = Value::Object(serde_json::Map::new());
                        collect(&Value::Object(only.clone()), &empty, &path, fields);
                    }
                    _ => drop(fields.insert(path)),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                collect(one, other, &format!("{path}[{index}]"), fields);
            }
        }
        _ if before != after => drop(fields.insert(path.to_owned())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const BEFORE: &str = r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1","memory":"64Mi"},
        "requests":{"cpu":"1","memory":"64Mi"}}}],"terminationGracePeriodSeconds":5}"#;

    fn compared(after: &str) -> Applied {
        difference(&testing::pod(BEFORE), &testing::pod(after))
    }

    #[test]
    fn what_can_be_changed_in_place_is() {
        assert_eq!(compared(BEFORE), Applied::Unchanged);
        let fields = |fields: &[&str]| fields.iter().map(|&field| field.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            compared(&BEFORE.replace("\"i\"", "\"j\"").replace(":5", ":6")),
            Applied::Configured(fields(&[
                "spec.containers[0].image",
                "spec.terminationGracePeriodSeconds"
            ]))
        );
        assert_eq!(
            compared(&BEFORE.replace("64Mi", "65Mi")),
            Applied::Configured(fields(&[
                "spec.containers[0].resources.limits.memory",
                "spec.containers[0].resources.requests.memory"
            ]))
        );
        // Another QoS class is another group.
        let request = BEFORE.replace(
            r#""requests":{"cpu":"1","memory":"64Mi"}"#,
            r#""requests":{"cpu":"500m","memory":"64Mi"}"#,
        );
        assert!(matches!(compared(&request), Applied::Replaced(_)));
        let unlimited = BEFORE.replace(r#""cpu":"1","memory""#, r#""memory""#);
        assert!(matches!(compared(&unlimited), Applied::Replaced(_)));
        assert_eq!(
            compared(&BEFORE.replace(r#""image":"i""#, r#""image":"i","command":["x"]"#)),
            Applied::Replaced(fields(&["spec.containers[0].command"]))
        );
        assert!(matches!(
            compared(&BEFORE.replace(
                r#"{"containers":["#,
                r#"{"containers":[{"name":"d","image":"i"},"#
            )),
            Applied::Replaced(_)
        ));
    }

    #[test]
    fn labels_change_whoever_shows_them() {
        let spec = BEFORE.replace(
            r#"{"containers""#,
            r#"{"volumes":[{"name":"v","downwardAPI":{"items":[{"path":"l","fieldRef":{"fieldPath":"metadata.labels"}}]}}],"containers""#,
        );
        let mut labelled = testing::pod(&spec);
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(
            difference(&testing::pod(&spec), &labelled),
            Applied::Configured(vec!["metadata.labels.a".to_owned()])
        );
    }
}
