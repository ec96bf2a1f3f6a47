//! Showing how the images of pods come that somebody else runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::watch;
use tokio::time::timeout;

use super::bars::Bars;
use super::control::{CallError, Caller};
use super::inspect::Places;
use super::run::Workload;
use crate::pulls::Coming;
use crate::spec;

/// Who hands a pod over waits so long for an image to begin to come, or the next one.
const QUIET: Duration = Duration::from_secs(2);

impl Caller {
    /// Runs `until`, and draws how these images come to the pod meanwhile. Whatever goes wrong with the drawing is nobody's
    /// concern.
    pub async fn with_pulls<T>(
        &self,
        pod: &str,
        images: BTreeSet<String>,
        bars: &Bars,
        until: impl Future<Output = T>,
    ) -> T {
        let drawn = async {
            if let Ok(coming) = self.pulls(pod, images).await {
                bars.follow(coming).await;
            }
            std::future::pending().await
        };
        let done = tokio::select! {
            done = until => done,
            never = drawn => never,
        };
        bars.clear();
        done
    }

    /// Draws how the images of pods come that were just handed over, until each pod has begun or nothing comes.
    ///
    /// # Errors
    /// Who runs them can't be asked.
    pub async fn show_first_pulls(
        &self,
        workload: &Workload,
        images: BTreeSet<String>,
        bars: &Bars,
    ) -> Result<(), CallError> {
        let name = |pod: &Pod| format!("{}/{}", spec::namespace(pod), spec::name(pod));
        let pods: Vec<String> = workload.pods.iter().map(name).collect();
        let Some(first) = pods.first() else {
            return Ok(());
        };
        let coming = self.pulls(first, images).await?;
        let begun = async {
            for pod in &pods {
                // One that has gone has begun.
                let _ = self.places().when(pod, |pod| has_begun(pod).then_some(())).await;
            }
        };
        tokio::select! {
            () = begun => {}
            () = nothing_comes(coming.clone()) => {}
            () = bars.follow(coming) => {}
        }
        bars.clear();
        Ok(())
    }
}

impl Caller {
    /// Draws how images come to containers that are started anew, until each of them runs once more than `before`, can't, or
    /// nothing comes.
    ///
    /// # Errors
    /// Who runs the pod can't be asked.
    pub async fn show_pulls_again(
        &self,
        pod: &str,
        images: BTreeSet<String>,
        before: &BTreeMap<String, i32>,
        bars: &Bars,
    ) -> Result<(), CallError> {
        let coming = self.pulls(pod, images).await?;
        let begun = async {
            // One that has gone does not begin any more.
            let _ = self
                .places()
                .when(pod, |pod| have_begun_again(pod, before).then_some(()))
                .await;
        };
        // Their images come when they have ended, which may take their grace period.
        let nothing = async {
            let _ = self
                .places()
                .when(pod, |pod| have_ended(pod, before).then_some(()))
                .await;
            nothing_comes(coming.clone()).await;
        };
        tokio::select! {
            () = begun => {}
            () = nothing => {}
            () = bars.follow(coming.clone()) => {}
        }
        bars.clear();
        Ok(())
    }
}

impl Places {
    /// How often containers of a pod were started again; of those that `wanted` wants.
    pub fn restart_counts(&self, pod: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, i32> {
        let pod = self.pod(pod).ok();
        let counts = pod.iter().flat_map(restart_counts);
        counts.filter(|(name, _)| wanted(name)).collect()
    }

    /// The containers that have another image in `pod` than they have now, and will be started anew for it.
    pub fn with_another_image(&self, pod: &Pod) -> Vec<String> {
        let images = |pod: &Pod| -> Vec<(String, Option<String>)> {
            let all = spec::all_containers(pod);
            all.map(|(container, _)| (container.name.clone(), container.image.clone()))
                .collect()
        };
        let now = self.pod(&format!("{}/{}", spec::namespace(pod), spec::name(pod)));
        let known = now.map(|now| images(&now)).unwrap_or_default();
        let changed = images(pod).into_iter().filter(|own| !known.contains(own));
        changed.map(|(name, _)| name).collect()
    }
}

fn restart_counts(pod: &Pod) -> impl Iterator<Item = (String, i32)> {
    all_statuses(pod).map(|status| (status.name.clone(), status.restart_count))
}

fn all_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    })
}

/// None of them is in the run any more that it was in before.
fn have_ended(pod: &Pod, before: &BTreeMap<String, i32>) -> bool {
    before.iter().all(|(name, count)| {
        let status = all_statuses(pod).find(|status| status.name == *name);
        status.is_none_or(|status| {
            let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
            status.restart_count > *count || !runs
        })
    })
}

fn have_begun_again(pod: &Pod, before: &BTreeMap<String, i32>) -> bool {
    before.iter().all(|(name, count)| {
        let status = all_statuses(pod).find(|status| status.name == *name);
        status.is_none_or(|status| {
            let reason = status.state.as_ref().and_then(|state| {
                let waiting = state.waiting.as_ref()?;
                waiting.reason.as_deref()
            });
            let waits =
                reason.is_some_and(|reason| !matches!(reason, "ContainerCreating" | "PodInitializing"));
            status.restart_count > *count || waits
        })
    })
}

impl Workload {
    /// Images that a registry will be asked for, as not all of them are here.
    pub fn to_pull(&self, is_here: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let containers = self.pods.iter().flat_map(spec::all_containers);
        containers
            .filter_map(|(container, _)| {
                let image = container.image.as_deref()?;
                let asks = match container.image_pull_policy.as_deref() {
                    Some("Always") => true,
                    Some("Never") => false,
                    _ => !is_here(image),
                };
                asks.then(|| image.to_owned())
            })
            .collect()
    }
}

async fn nothing_comes(mut coming: watch::Receiver<Coming>) {
    loop {
        let nothing = coming.borrow_and_update().is_empty();
        let next = coming.changed();
        let ended = if nothing {
            timeout(QUIET, next).await.map_or(true, |next| next.is_err())
        } else {
            next.await.is_err()
        };
        if ended {
            return;
        }
    }
}

/// A container has run, or can't for another reason than that it is being made.
fn has_begun(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    if status.phase.as_deref() != Some("Pending") {
        return true;
    }
    let init = status.init_container_statuses.iter().flatten();
    let is_further = |container: &ContainerStatus| {
        container.state.as_ref().is_some_and(|state| {
            let reason = state
                .waiting
                .as_ref()
                .and_then(|waiting| waiting.reason.as_deref());
            state.running.is_some()
                || state.terminated.is_some()
                || reason.is_some_and(|reason| !matches!(reason, "ContainerCreating" | "PodInitializing"))
        })
    };
    init.chain(status.container_statuses.iter().flatten())
        .any(is_further)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_begun_again_when_all_are_counted_or_wait_for_more_than_their_making() {
        let of = |states: [(i32, serde_json::Value); 2]| -> Pod {
            let statuses: Vec<_> = ["a", "b"]
                .iter()
                .zip(states)
                .map(|(name, (count, state))| {
                    serde_json::json!({ "name": name, "image": "i", "imageID": "", "ready": false,
                        "restartCount": count, "state": state })
                })
                .collect();
            let status = serde_json::json!({ "containerStatuses": statuses });
            serde_json::from_value(serde_json::json!({ "metadata": {}, "status": status })).unwrap()
        };
        let runs = || serde_json::json!({ "running": {} });
        let waits = |reason: &str| serde_json::json!({ "waiting": { "reason": reason } });
        let before = restart_counts(&of([(1, runs()), (0, runs())])).collect();
        for (now, ended, begun) in [
            (of([(1, runs()), (0, runs())]), false, false),
            (of([(2, runs()), (0, runs())]), false, false),
            (of([(2, runs()), (1, runs())]), true, true),
            (of([(2, runs()), (0, waits("ContainerCreating"))]), true, false),
            (of([(2, runs()), (0, waits("ErrImagePull"))]), true, true),
        ] {
            assert_eq!(have_ended(&now, &before), ended, "{now:?}");
            assert_eq!(have_begun_again(&now, &before), begun, "{now:?}");
        }
    }

    #[test]
    fn a_pod_has_begun_when_it_is_more_than_being_made() {
        let of = |phase: &str, state: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({ "metadata": {}, "status": { "phase": phase,
                "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": false,
                    "restartCount": 0, "state": state }] } }))
            .unwrap()
        };
        let waits = |reason: &str| serde_json::json!({ "waiting": { "reason": reason } });
        for (pod, begun) in [
            (Pod::default(), false),
            (of("Pending", waits("ContainerCreating")), false),
            (of("Pending", waits("PodInitializing")), false),
            (of("Pending", waits("ErrImagePull")), true),
            (of("Pending", serde_json::json!({ "running": {} })), true),
            (of("Running", waits("CrashLoopBackOff")), true),
        ] {
            assert_eq!(has_begun(&pod), begun, "{pod:?}");
        }
    }
}
