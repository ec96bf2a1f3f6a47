//! Whether a container's image is there, is to be pulled, or can't be had.

use berth_cri::{Image, UnixNanos};
use k8s_openapi::api::core::v1::Container;

use super::start::last_ended;
use super::termination::wake;
use super::view::View;
use super::{Plan, Reason, Step, StepFailure, StepKey, Waiting};
use crate::backoff::{after, image_delay};
use crate::defaults::IMAGE_ERROR_SHOWN;
use crate::spec;

/// The image of a container that is about to be made, if it and those that it mounts as volumes are there, or why not yet.
/// Plans the pulls that it takes.
pub(crate) fn ready_image<'a>(
    view: &View<'a>,
    container: &Container,
    plan: &mut Plan,
) -> Result<&'a Image, Waiting> {
    // A pull for an earlier attempt does not count for this one.
    let ended_at = last_ended(view, container).map_or(1, |record| record.finished_at.max(1));
    // An end that is still to come: the clock was set back. Until it is there, no pull would ever be late enough.
    let wanted_since = if ended_at > view.now { 1 } else { ended_at };
    let own = Wanted {
        name: container.image.as_deref().unwrap_or_default(),
        policy: container.image_pull_policy.as_deref(),
        wanted_since,
    };
    let image = ready(view, own, plan);
    // A volume is the same for the pod's whole life.
    let volumes = spec::image_volumes(&view.desired.pod, container).map(|source| Wanted {
        name: source.reference.as_deref().unwrap_or_default(),
        policy: source.pull_policy.as_deref(),
        wanted_since: 1,
    });
    let volumes: Vec<_> = volumes.map(|wanted| ready(view, wanted, plan)).collect();
    volumes.into_iter().try_for_each(|volume| volume.map(drop))?;
    image
}

/// An image that has to be there.
struct Wanted<'a> {
    name: &'a str,
    policy: Option<&'a str>,
    /// With the policy `Always`, an earlier pull does not count.
    wanted_since: UnixNanos,
}

fn ready<'a>(view: &View<'a>, wanted: Wanted<'_>, plan: &mut Plan) -> Result<&'a Image, Waiting> {
    let Wanted {
        name,
        policy,
        wanted_since,
    } = wanted;
    let creating = || Waiting {
        reason: Reason::ContainerCreating,
        message: String::new(),
    };
    let state = view.observed.images.get(name).ok_or_else(creating)?;
    match (policy, &state.present) {
        (Some("Always"), Some(image)) if state.pulled_at >= wanted_since => Ok(image),
        (Some("Always"), _) | (Some("IfNotPresent") | None, None) => Err(pull(view, name, plan)),
        (Some("Never"), None) => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            Err(Waiting {
                reason: Reason::ErrImageNeverPull,
                message,
            })
        }
        (_, Some(image)) => Ok(image),
        (_, None) => Err(pull(view, name, plan)),
    }
}

/// Plans the pull, or a later one if it has just failed.
fn pull(view: &View<'_>, image: &str, plan: &mut Plan) -> Waiting {
    let key = StepKey::PullImage(image.to_owned());
    let step = Step::PullImage {
        image: image.to_owned(),
    };
    let failure = view.observed.failures.get(&key);
    let running = view.observed.in_flight.contains(&key);
    match failure.map(|failure| (failure, after(failure.at, image_delay(failure.count)))) {
        Some((failure, retry_at)) if !running && view.now < retry_at => {
            wake(plan, retry_at);
            failed(view.now, image, failure, plan)
        }
        Some((failure, _)) => {
            push_once(step, plan);
            failed(view.now, image, failure, plan)
        }
        None => {
            push_once(step, plan);
            Waiting {
                reason: Reason::ContainerCreating,
                message: String::new(),
            }
        }
    }
}

/// Two containers of one image need one pull.
fn push_once(step: Step, plan: &mut Plan) {
    if !plan.steps.contains(&step) {
        plan.steps.push(step);
    }
}

/// First what is wrong, then that it is waited for.
fn failed(now: UnixNanos, image: &str, failure: &StepFailure, plan: &mut Plan) -> Waiting {
    let shown_until = after(failure.at, IMAGE_ERROR_SHOWN);
    if now < shown_until {
        wake(plan, shown_until);
        return Waiting {
            reason: failure.reason,
            message: failure.message.clone(),
        };
    }
    let reason = match failure.reason {
        Reason::ErrImagePull => Reason::ImagePullBackOff,
        other => other,
    };
    Waiting {
        reason,
        message: format!(
            "Back-off pulling image {image:?}: {}: {}",
            failure.reason, failure.message
        ),
    }
}
