//! What a start waits for.

use super::*;

/// Who asks for a restart does not want to wait, and nobody is to pay for it later.
#[test]
fn a_restart_that_somebody_asks_for_ends_a_pause() {
    let paused = Look::new(&policy("Always"))
        .ended("c", 3, 1, 5)
        .annotated(RESTARTS_IN_A_ROW, "3");
    assert_eq!(paused.at(10).waiting["c"].reason, Reason::CrashLoopBackOff);
    assert_eq!(paused.at(10).wake_at, Some(paused.second(45)));
    let asked = paused.asked_anew(id("c", 3), 8);
    assert_eq!(asked.steps(10), ["start c 4 in s0"]);
    let annotations = started_with(&asked.at(10), "c");
    let in_a_row = annotations.get(RESTARTS_IN_A_ROW).map_or("0", String::as_str);
    assert_eq!(in_a_row, "0");
}

/// What was begun is gone on with, although the clock says by now that it is not time yet.
#[test]
fn a_start_that_was_begun_goes_on() {
    let paused = Look::new(&policy("Always"))
        .ended("c", 1, 1, 5)
        .annotated(RESTARTS_IN_A_ROW, "1");
    assert_eq!(paused.steps(10), NOTHING);
    let begun = paused.in_flight(start_of("c", 2));
    assert_eq!(begun.steps(10), ["start c 2 in s0"]);
    let failed = Look::new(&policy("Always")).failed(start_of("c", 0), 5, Reason::RunContainerError);
    assert_eq!(
        (failed.steps(10), failed.at(10).wake_at),
        (vec![], Some(failed.second(15)))
    );
    let again = failed.in_flight(start_of("c", 0));
    assert_eq!(again.steps(10), ["start c 0 in s0"]);
    // What went wrong is said until it goes well.
    assert_eq!(again.at(20).waiting["c"].reason, Reason::RunContainerError);
    let pull = StepKey::PullImage("i:1".into());
    let mut pulling = Look::new(&policy("Always")).failed(pull.clone(), 5, Reason::ErrImagePull);
    pulling
        .observed
        .images
        .values_mut()
        .for_each(|image| image.present = None);
    assert_eq!(pulling.steps(10), NOTHING);
    assert_eq!(pulling.in_flight(pull).steps(10), ["pull i:1"]);
}

#[test]
fn a_pod_s_own_pauses_count_before_the_node_s() {
    let mut look = Look::new(&policy("Always"))
        .ended("c", 1, 1, 5)
        .annotated(RESTARTS_IN_A_ROW, "1");
    let mut pod = look.desired.pod.as_ref().clone();
    let own = (
        "berth.dev/restart-backoff".to_owned(),
        "initial=70s,max=100s".to_owned(),
    );
    pod.metadata.annotations = Some([own].into());
    look.desired.pod = pod.into();
    let plan = look.at(10);
    assert_eq!(plan.wake_at, Some(look.second(75)));
    assert!(
        plan.waiting["c"].message.starts_with("back-off 1m10s restarting"),
        "{plan:#?}"
    );
}

/// Nothing tells when another container writes it.
#[test]
fn a_file_with_variables_is_looked_for_again_and_again() {
    let spec = r#"{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i:1","env":[
        {"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"f","key":"A"}}}]}]}"#;
    let plan = Look::new(spec).at(5);
    assert_eq!(plan.waiting["c"].reason, Reason::CreateContainerConfigError);
    assert_eq!(plan.wake_at, Some(Look::new(spec).second(15)));
}

#[test]
fn an_image_that_is_always_pulled_is_pulled_for_each_start() {
    let mut look = Look::new(r#"{"containers":[{"name":"c","image":"i","imagePullPolicy":"Always"}]}"#);
    assert_eq!(look.steps(5), ["start c 0 in s0"], "this daemon has pulled it");
    look.observed.images.get_mut("i").unwrap().pulled_at = 0;
    assert_eq!(look.steps(5), ["pull i"], "an earlier one may have");
    let unseen = look.record("c", 0, ContainerState::Unknown);
    assert_eq!(
        unseen.steps(5),
        ["pull i"],
        "although nobody knows when the last run ended"
    );
}

#[test]
fn an_image_volume_is_there_before_the_container_and_pulled_once() {
    let spec = r#"{"volumes":[{"name":"v","image":{"reference":"data","pullPolicy":"Always"}}],"containers":[
        {"name":"c","image":"i:1","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}"#;
    let volume = |present: bool, look: Look| {
        let state = ImageState {
            present: present.then(crate::testing::image),
            pulled_at: if present { look.second(0) } else { 0 },
        };
        let mut look = look;
        look.observed.images.insert("data".into(), state);
        look
    };
    assert_eq!(volume(false, Look::new(spec)).steps(5), ["pull data"]);
    assert_eq!(volume(true, Look::new(spec)).steps(5), ["start c 0 in s0"]);
    let again = volume(true, Look::new(spec).ended("c", 0, 1, 3));
    assert_eq!(again.steps(5), ["start c 1 in s0"]);
}
