//! `berth apply`: a pod as a file says, with as little disturbance as can be.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::control::{CallError, Caller};
use super::difference::difference;
use super::inspect::{InspectError, Places};
use super::{detached, objects};
use crate::plan::Objects;
use crate::{refers, spec};

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
