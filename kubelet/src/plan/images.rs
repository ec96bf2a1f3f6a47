//! Whether a container's image is there, is to be pulled, or can't be had.

use std::ops::RangeInclusive;

use berth_cri::{Image, UnixNanos};
use k8s_openapi::api::core::v1::Container;

use super::start::last_ended;
use super::termination::wake;
use super::view::View;
use super::{Plan, Reason, Step, StepFailure, StepKey, Waiting};
use crate::backoff::{image_delay, pause_end};
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
    // An end that is still to come: the clock was set back. Until it is there, no pull would ever be late enough; but one
    // that is still to come as well was for the earlier attempt.
    let pulled = if ended_at > view.now {
        1..=view.now
    } else {
        ended_at..=UnixNanos::MAX
    };
    let own = Wanted {
        name: container.image.as_deref().unwrap_or_default(),
        policy: container.image_pull_policy.as_deref(),
        pulled,
    };
    let image = ready(view, own, plan);
    // A volume is the same for the pod's whole life.
    let volumes = spec::image_volumes(&view.desired.pod, container).map(|source| Wanted {
        name: source.reference.as_deref().unwrap_or_default(),
        policy: source.pull_policy.as_deref(),
        pulled: 1..=UnixNanos::MAX,
    });
    let volumes: Vec<_> = volumes.map(|wanted| ready(view, wanted, plan)).collect();
    volumes.into_iter().try_for_each(|volume| volume.map(drop))?;
    image
}

/// An image that has to be there.
struct Wanted<'a> {
    name: &'a str,
    policy: Option<&'a str>,
    /// With the policy `Always`, no other pull counts.
    pulled: RangeInclusive<UnixNanos>,
}

fn ready<'a>(view: &View<'a>, wanted: Wanted<'_>, plan: &mut Plan) -> Result<&'a Image, Waiting> {
    let Wanted { name, policy, pulled } = wanted;
    let creating = || Waiting {
        reason: Reason::ContainerCreating,
        message: String::new(),
    };
    let state = view.observed.images.get(name).ok_or_else(creating)?;
    match (policy, &state.present) {
        (Some("Always"), Some(image)) if pulled.contains(&state.pulled_at) => Ok(image),
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
    let Some(failure) = failure else {
        push_once(step, plan);
        return Waiting {
            reason: Reason::ContainerCreating,
            message: String::new(),
        };
    };
    match pause_end(failure.at, image_delay(failure.count), view.now) {
        Some(retry_at) if !running => wake(plan, retry_at),
        _ => push_once(step, plan),
    }
    failed(view.now, image, failure, plan)
}

/// Two containers of one image need one pull.
fn push_once(step: Step, plan: &mut Plan) {
    if !plan.steps.contains(&step) {
        plan.steps.push(step);
    }
}

/// First what is wrong, then that it is waited for.
fn failed(now: UnixNanos, image: &str, failure: &StepFailure, plan: &mut Plan) -> Waiting {
    if let Some(shown_until) = pause_end(failure.at, IMAGE_ERROR_SHOWN, now) {
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
