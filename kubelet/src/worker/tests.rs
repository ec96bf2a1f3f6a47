//! Workers against an engine in memory, on a clock that jumps.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::fake::{Behaviour, FakeCgroups, FakeEngine};
use super::*;
use crate::identity::PodUid;
use crate::plan::{Desired, Objects};

struct Bench {
    root: tempfile::TempDir,
    engine: FakeEngine,
    cgroups: Arc<FakeCgroups>,
    node: Arc<Node>,
    router: EventRouter,
}

impl Bench {
    fn new() -> Self {
        let begun = Instant::now();
        let clock = Clock::new(move || {
            1_700_000_000_000_000_000 + u64::try_from(begun.elapsed().as_nanos()).unwrap()
        });
        let root = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new(clock.clone());
        engine.add_image("i");
        let cgroups = Arc::new(FakeCgroups::default());
        let node = Arc::new(Node {
            runtime_endpoint: None,
            engine: Arc::new(engine.clone()),
            kubelet_root: root.path().join("kubelet"),
            facts: Arc::new(NodeFacts {
                log_root: root.path().join("logs"),
                ..NodeFacts::default()
            }),
            cgroups: Arc::clone(&cgroups) as Arc<dyn PodCgroups>,
            clock,
            pull_progress: Arc::new(|_| {}),
            workers: Workers::default(),
        });
        let router = EventRouter::start(&engine);
        Bench {
            root,
            engine,
            cgroups,
            node,
            router,
        }
    }

    fn spawn(&self, spec: &str) -> Running {
        let pod: Pod = crate::testing::pod(spec);
        let uid = PodUid(pod.metadata.uid.clone().unwrap());
        let desired = Desired {
            pod: Arc::new(pod),
            uid: uid.clone(),
            objects: Arc::new(Objects::default()),
            node: Arc::clone(&self.node.facts),
            user_ids: None,
            deletion: None,
        };
        let (sender, events) = mpsc::unbounded_channel();
        let engine_events = self.router.subscribe(&uid);
        let mut handle = spawn(Arc::clone(&self.node), desired, engine_events, sender).unwrap();
        handle.release_logs();
        Running { handle, events }
    }

    /// Nothing of any pod may be left.
    fn assert_clean(&self) {
        assert!(self.engine.is_empty(), "{:?}", self.engine.calls());
        assert!(self.cgroups.is_empty());
        let kubelet = self.root.path().join("kubelet");
        assert!(!kubelet.join("pod-records").exists());
        let left = std::fs::read_dir(kubelet.join("pods"))
            .map(Iterator::count)
            .unwrap_or(0);
        assert_eq!(left, 0);
        let logs = std::fs::read_dir(self.root.path().join("logs"))
            .map(Iterator::count)
            .unwrap_or(0);
        assert_eq!(logs, 0);
    }

    async fn until(&self, what: &str, condition: impl Fn(&FakeEngine) -> bool) {
        let wait = async {
            while !condition(&self.engine) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(3600), wait).await.is_err() {
            panic!("never {what}: {:?}", self.engine.calls());
        }
    }
}

struct Running {
    handle: PodHandle,
    events: mpsc::UnboundedReceiver<PodEvent>,
}

impl Running {
    async fn event(&mut self, reason: EventReason, container: &str) -> PodEvent {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the worker is gone");
                if event.reason == reason && event.container.as_deref().unwrap_or_default() == container {
                    return event;
                }
            }
        };
        match timeout(Duration::from_secs(3600), wait).await {
            Ok(event) => event,
            Err(_) => panic!("never {reason:?} {container}"),
        }
    }

    async fn gone(mut self) -> PodState {
        timeout(Duration::from_secs(3600), self.handle.gone())
            .await
            .expect("the pod never went")
    }
}

fn exits(after_seconds: u64, code: i32) -> Behaviour {
    Behaviour {
        exits: Some((Duration::from_secs(after_seconds), code)),
        ..Behaviour::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_longer_and_longer() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(0, 1));
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench
        .until("nine starts", |engine| engine.seconds_of("start c").len() >= 9)
        .await;
    let starts = bench.engine.seconds_of("start c");
    assert_eq!(starts, [0, 0, 10, 30, 70, 150, 310, 610, 910]);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ran_long_is_restarted_at_once() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(601, 1));
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench
        .until("three starts", |engine| engine.seconds_of("start c").len() >= 3)
        .await;
    assert_eq!(bench.engine.seconds_of("start c"), [0, 601, 1202]);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

const WITH_SIDECARS: &str = r#"{"initContainers":[
    {"name":"first","image":"i"},
    {"name":"side1","image":"i","restartPolicy":"Always","startupProbe":{"exec":{"command":["up"]},"periodSeconds":1,"failureThreshold":1000}},
    {"name":"second","image":"i"},
    {"name":"side2","image":"i","restartPolicy":"Always"}],
  "containers":[{"name":"main","image":"i"},{"name":"other","image":"i"}]}"#;

#[tokio::test(start_paused = true)]
async fn init_containers_and_sidecars_come_in_order_and_go_in_reverse() {
    let bench = Bench::new();
    bench.engine.behave("first", exits(2, 0));
    bench.engine.behave("second", exits(2, 0));
    bench.engine.behave(
        "side1",
        Behaviour {
            exec_code: 1,
            ..Behaviour::default()
        },
    );
    let pod = bench.spawn(WITH_SIDECARS);
    bench
        .until("side1", |engine| engine.running("side1").is_some())
        .await;
    sleep(Duration::from_secs(5)).await;
    assert!(
        bench.engine.seconds_of("start second").is_empty(),
        "the startup probe has not succeeded"
    );
    bench.engine.behave("side1", Behaviour::default());
    bench
        .until("other", |e| {
            e.running("other").is_some() && e.running("main").is_some()
        })
        .await;
    let starts = bench.engine.order_of(&["start"]);
    assert_eq!(
        starts[..4],
        [
            "start first-0",
            "start side1-0",
            "start second-0",
            "start side2-0"
        ]
    );
    pod.handle.delete(None);
    pod.gone().await;
    let stops = bench.engine.order_of(&["stop"]);
    let names: Vec<_> = stops
        .iter()
        .map(|call| call.split([' ', '-']).nth(1).unwrap())
        .collect();
    assert_eq!(names[2..], ["side2", "side1"], "{stops:?}");
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_its_signal_is_killed_when_its_time_is_over() {
    let bench = Bench::new();
    bench.engine.behave(
        "c",
        Behaviour {
            stops_after: None,
            ..Behaviour::default()
        },
    );
    let pod = bench.spawn(
        r#"{"terminationGracePeriodSeconds":20,"containers":[{"name":"c","image":"i",
            "lifecycle":{"preStop":{"exec":{"command":["bye"]}}}}]}"#,
    );
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let begun = Instant::now();
    pod.handle.delete(None);
    pod.gone().await;
    assert_eq!(begun.elapsed().as_secs(), 20);
    let calls = bench.engine.order_of(&["exec", "stop"]);
    assert_eq!(calls[0], "exec c-0 bye");
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_second_wish_with_no_grace_kills_at_once() {
    let bench = Bench::new();
    bench.engine.behave(
        "c",
        Behaviour {
            stops_after: None,
            ..Behaviour::default()
        },
    );
    let pod =
        bench.spawn(r#"{"terminationGracePeriodSeconds":1000,"containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let begun = Instant::now();
    pod.handle.delete(None);
    sleep(Duration::from_secs(5)).await;
    pod.handle.delete(Some(Duration::ZERO));
    pod.gone().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?} {:?}",
        begun.elapsed(),
        bench.engine.calls()
    );
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn readiness_flips_with_its_probe_and_liveness_restarts() {
    let bench = Bench::new();
    let mut pod = bench.spawn(
        r#"{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"i",
            "readinessProbe":{"exec":{"command":["r"]},"periodSeconds":1,"failureThreshold":2}},
          {"name":"d","image":"i",
            "livenessProbe":{"exec":{"command":["l"]},"periodSeconds":1,"failureThreshold":3}}]}"#,
    );
    pod.event(EventReason::Ready, "c").await;
    bench.engine.behave(
        "c",
        Behaviour {
            exec_code: 1,
            ..Behaviour::default()
        },
    );
    pod.event(EventReason::NotReady, "c").await;
    bench.engine.behave("c", Behaviour::default());
    pod.event(EventReason::Ready, "c").await;
    assert_eq!(bench.engine.order_of(&["start"]).len(), 2);

    bench.engine.behave(
        "d",
        Behaviour {
            exec_code: 1,
            ..Behaviour::default()
        },
    );
    pod.event(EventReason::Killing, "d").await;
    bench.engine.behave("d", Behaviour::default());
    bench
        .until("d again", |engine| engine.seconds_of("start d").len() == 2)
        .await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.engine.seconds_of("start d").len(), 2);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_done_its_work_stays_until_it_is_deleted() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(3, 0));
    let mut pod = bench.spawn(r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}"#);
    let ended = async {
        while pod.handle.state.borrow_and_update().stage < Stage::Terminated {
            pod.handle.state.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(60), ended).await.unwrap();
    assert_eq!(
        pod.handle.state.borrow().status.phase.as_deref(),
        Some("Succeeded")
    );
    assert_eq!(bench.engine.seconds_of("start c"), [0]);
    pod.handle.delete(None);
    let last = pod.gone().await;
    assert_eq!(last.status.phase.as_deref(), Some("Succeeded"));
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_new_worker_adopts_what_a_dead_one_left() {
    let bench = Bench::new();
    let spec = r#"{"containers":[{"name":"c","image":"i",
        "readinessProbe":{"exec":{"command":["r"]},"periodSeconds":10}}]}"#;
    let mut first = bench.spawn(spec);
    first.event(EventReason::Ready, "c").await;
    first.handle.break_off().await;
    let mut second = bench.spawn(spec);
    second.event(EventReason::Adopted, "c").await;
    second.event(EventReason::Ready, "c").await;
    sleep(Duration::from_secs(100)).await;
    while let Ok(event) = second.events.try_recv() {
        assert_ne!(event.reason, EventReason::NotReady);
    }
    assert_eq!(
        bench.engine.order_of(&["start", "sandbox"]),
        ["sandbox 0", "start c-0"]
    );
    second.handle.delete(None);
    second.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_outlives_the_daemon() {
    let bench = Bench::new();
    bench.engine.behave(
        "c",
        Behaviour {
            stops_after: None,
            ..Behaviour::default()
        },
    );
    let spec = r#"{"terminationGracePeriodSeconds":30,"containers":[{"name":"c","image":"i"}]}"#;
    let first = bench.spawn(spec);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let begun = Instant::now();
    first.handle.delete(None);
    sleep(Duration::from_secs(10)).await;
    first.handle.break_off().await;
    bench.spawn(spec).gone().await;
    assert!(
        begun.elapsed() <= Duration::from_secs(31),
        "{:?}",
        begun.elapsed()
    );
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_is_made_anew() {
    let bench = Bench::new();
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    bench.engine.lose_sandbox();
    bench
        .until("c again", |engine| engine.running("c").is_some())
        .await;
    assert_eq!(bench.engine.order_of(&["sandbox"]), ["sandbox 0", "sandbox 1"]);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_waits_for_no_pull_and_no_post_start_hook() {
    let hook = r#""lifecycle":{"postStart":{"sleep":{"seconds":50000}}}"#;
    for container in [r#""image":"slow""#.to_owned(), format!(r#""image":"i",{hook}"#)] {
        let bench = Bench::new();
        let pod = bench.spawn(&format!(r#"{{"containers":[{{"name":"c",{container}}}]}}"#));
        bench
            .until("begun", |engine| !engine.seconds_of("sandbox").is_empty())
            .await;
        sleep(Duration::from_secs(5)).await;
        pod.handle.delete(None);
        pod.gone().await;
        bench.assert_clean();
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_tried_again_after_longer_and_longer_pauses() {
    let bench = Bench::new();
    let mut pod =
        bench.spawn(r#"{"containers":[{"name":"c","image":"missing","imagePullPolicy":"IfNotPresent"}]}"#);
    pod.event(EventReason::BackOff, "c").await;
    bench
        .until("four pulls", |engine| engine.seconds_of("pull").len() >= 4)
        .await;
    assert_eq!(bench.engine.seconds_of("pull"), [0, 10, 30, 70]);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_is_added_to_a_pod_that_runs() {
    let bench = Bench::new();
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let look = |name: &str| k8s_openapi::api::core::v1::EphemeralContainer {
        name: name.into(),
        image: Some("i".into()),
        target_container_name: Some("c".into()),
        ..Default::default()
    };
    pod.handle.control().debug(look("look"));
    bench
        .until("look", |engine| engine.running("look").is_some())
        .await;
    // Neither a name that there is, nor the same one again, makes another one.
    pod.handle.control().debug(look("c"));
    pod.handle.control().debug(look("look"));
    pod.handle.control().debug(look("other"));
    bench
        .until("other", |engine| engine.running("other").is_some())
        .await;
    for name in ["start c", "start look"] {
        assert_eq!(bench.engine.seconds_of(name).len(), 1, "{name}");
    }
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_restart_gets_one_whatever_the_policy_says() {
    let bench = Bench::new();
    let pod = bench.spawn(
        r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"},{"name":"d","image":"i"}]}"#,
    );
    bench
        .until("both", |engine| {
            engine.running("c").is_some() && engine.running("d").is_some()
        })
        .await;
    for round in 2..5 {
        pod.handle.control().restart(vec!["c".into()]);
        bench
            .until("c again", |engine| engine.seconds_of("start c").len() == round)
            .await;
        bench
            .until("c runs", |engine| engine.running("c").is_some())
            .await;
    }
    let starts = bench.engine.seconds_of("start c");
    assert!(starts[3] < 60, "no back-off: {starts:?}");
    assert_eq!(bench.engine.seconds_of("start d").len(), 1);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn another_image_starts_its_container_anew_and_labels_start_none() {
    let bench = Bench::new();
    let spec = |image: &str| {
        format!(r#"{{"containers":[{{"name":"c","image":"{image}"}},{{"name":"d","image":"i"}}]}}"#)
    };
    let pod = bench.spawn(&spec("i"));
    bench
        .until("both", |engine| {
            engine.running("c").is_some() && engine.running("d").is_some()
        })
        .await;
    let uid = pod.handle.state.borrow().pod.metadata.uid.clone();
    let mut changed: Pod = crate::testing::pod(&spec("j"));
    changed.metadata.uid = uid;
    changed.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    pod.handle.control().change(Arc::new(changed), Arc::default());
    bench
        .until("c again", |engine| engine.seconds_of("start c").len() == 2)
        .await;
    bench
        .until("c runs", |engine| engine.running("c").is_some())
        .await;
    assert_eq!(bench.engine.seconds_of("start d").len(), 1);
    assert!(pod.handle.state.borrow().pod.metadata.labels.is_some());
    let mut again: Pod = crate::testing::pod(&spec("k"));
    again.metadata.uid = pod.handle.state.borrow().pod.metadata.uid.clone();
    pod.handle.control().change(Arc::new(again), Arc::default());
    bench
        .until("c with the last image", |engine| {
            engine.running("c").is_some() && engine.image_of("c").as_deref() == Some("k")
        })
        .await;
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

const SIZED: &str = r#"{"containers":[
    {"name":"c","image":"i","resources":{"limits":{"cpu":"1","memory":"10Mi"}}},
    {"name":"d","image":"i","resources":{"limits":{"cpu":"1","memory":"10Mi"}},
     "resizePolicy":[{"resourceName":"cpu","restartPolicy":"RestartContainer"}]}]}"#;

fn resize(pod: &Running, spec: &str) {
    let mut changed: Pod = crate::testing::pod(spec);
    let before = Arc::clone(&pod.handle.state.borrow().pod);
    changed.metadata.uid.clone_from(&before.metadata.uid);
    changed.metadata.generation = before.metadata.generation.map(|generation| generation + 1);
    pod.handle.control().change(Arc::new(changed), Arc::default());
}

#[tokio::test(start_paused = true)]
async fn other_resources_come_in_place_or_with_a_restart_and_outlive_the_daemon() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    resize(&pod, &SIZED.replace("10Mi", "20Mi"));
    pod.event(EventReason::ResizeStarted, "").await;
    pod.event(EventReason::ResizeCompleted, "").await;
    let mib = |count: i64| count << 20;
    // In whatever order: the group is wide enough for both.
    let mut updates = bench.engine.order_of(&["update", "stop"]);
    updates.sort();
    assert_eq!(
        updates,
        [
            format!("update c-0 100000 {}", mib(20)),
            format!("update d-0 100000 {}", mib(20))
        ]
    );
    assert_eq!(bench.cgroups.memory_limits(), [Some(mib(20)), Some(mib(40))]);
    // Another daemon finds it done.
    pod.handle.break_off().await;
    let mut pod = bench.spawn(&SIZED.replace("10Mi", "20Mi"));
    pod.event(EventReason::Adopted, "d").await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.engine.order_of(&["update", "stop"]).len(), 2);
    // CPU in place for the one; the other is started anew.
    resize(
        &pod,
        &SIZED
            .replace("10Mi", "20Mi")
            .replace(r#""cpu":"1""#, r#""cpu":"2""#),
    );
    bench
        .until("d again", |engine| engine.seconds_of("start d").len() == 2)
        .await;
    bench
        .until("c has it", |engine| engine.order_of(&["update"]).len() == 3)
        .await;
    assert_eq!(bench.engine.seconds_of("start c").len(), 1);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_what_is_in_use_is_refused_until_it_is_not() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    bench.engine.use_memory(8 << 20);
    resize(&pod, &SIZED.replace("10Mi", "5Mi"));
    let error = pod.event(EventReason::ResizeError, "").await;
    assert!(
        error
            .message
            .starts_with("cannot decrease memory limits: attempting to set container")
            && error
                .message
                .ends_with("memory limit (5242880) below current usage (8388608)"),
        "{}",
        error.message
    );
    assert!(bench.engine.order_of(&["update"]).is_empty());
    let status = pod.handle.state.borrow().status.clone();
    let progress = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodResizeInProgress");
    assert_eq!(progress.and_then(|c| c.reason.as_deref()), Some("Error"));
    bench.engine.use_memory(1 << 20);
    pod.event(EventReason::ResizeCompleted, "").await;
    assert_eq!(bench.engine.order_of(&["update"]).len(), 2);
    assert_eq!(bench.cgroups.memory_limits().last(), Some(&Some(10 << 20)));
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_resize_waits_until_other_pods_leave_room() {
    let mut bench = Bench::new();
    let node = Arc::get_mut(&mut bench.node).unwrap();
    let facts = node.facts.as_ref().clone();
    node.facts = Arc::new(NodeFacts {
        memory_capacity: 64 << 20,
        cpu_capacity: 8000,
        ..facts
    });
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    let mut other: Pod = crate::testing::pod(&SIZED.replace("10Mi", "20Mi"));
    other.metadata.uid = Some("other".to_owned());
    other.metadata.name = Some("other".to_owned());
    let records = Records::new(&bench.node.kubelet_root);
    records
        .save(&PodRecord::new(other, 1, std::path::PathBuf::new()))
        .unwrap();
    resize(&pod, &SIZED.replace("10Mi", "30Mi"));
    let deferred = pod.event(EventReason::ResizeDeferred, "").await;
    assert!(
        deferred
            .message
            .contains("memory, requested: 62914560, used: 41943040"),
        "{}",
        deferred.message
    );
    sleep(Duration::from_secs(100)).await;
    assert!(bench.engine.order_of(&["update"]).is_empty());
    records.remove(&PodUid("other".into())).unwrap();
    pod.event(EventReason::ResizeCompleted, "").await;
    assert_eq!(bench.engine.order_of(&["update"]).len(), 2);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn there_is_one_worker_for_a_uid() {
    let bench = Bench::new();
    let spec = r#"{"containers":[{"name":"c","image":"i"}]}"#;
    let pod = bench.spawn(spec);
    let second = |name: &str, workers: Workers| {
        let mut twin: Pod = crate::testing::pod(spec);
        twin.metadata.name = Some(name.to_owned());
        let uid = PodUid(twin.metadata.uid.clone().unwrap());
        let desired = Desired {
            pod: Arc::new(twin),
            uid: uid.clone(),
            objects: Arc::new(Objects::default()),
            node: Arc::clone(&bench.node.facts),
            deletion: None,
            user_ids: None,
        };
        let node = Node {
            runtime_endpoint: None,
            engine: Arc::clone(&bench.node.engine),
            kubelet_root: bench.node.kubelet_root.clone(),
            facts: Arc::clone(&bench.node.facts),
            cgroups: Arc::clone(&bench.node.cgroups),
            clock: bench.node.clock.clone(),
            pull_progress: Arc::new(|_| {}),
            workers,
        };
        let (_, engine_events) = mpsc::unbounded_channel();
        let (events, _) = mpsc::unbounded_channel();
        spawn(Arc::new(node), desired, engine_events, events).map(drop)
    };
    let name = crate::spec::name(&pod.handle.state.borrow().pod).to_owned();
    let error = second(&name, bench.node.workers.clone()).unwrap_err();
    assert!(matches!(error, SpawnError::Running(_)), "{error}");
    // Another process with a pod of another name.
    let error = second("other", Workers::default()).unwrap_err();
    assert!(
        error.to_string().contains("give it another metadata.uid"),
        "{error}"
    );
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
    // Its end makes room.
    let again = bench.spawn(spec);
    again.handle.delete(None);
    again.gone().await;
}

/// Whatever happens in whatever order, no container is ever started twice or beside its twin (the engine checks), and
/// a deletion ends it all.
#[test]
fn random_events_never_start_a_container_twice() {
    use proptest::prelude::*;
    #[derive(Clone, Debug)]
    enum Happening {
        Resize(u32),
        Exit(usize, i32),
        Noise,
        Wait(u64),
        LoseSandbox,
        Restart,
    }
    let happening = prop_oneof![
        4 => (0..4_usize, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(c, code)| Happening::Exit(c, code)),
        2 => Just(Happening::Noise),
        4 => prop_oneof![0..50_u64, 1000..400_000_u64].prop_map(Happening::Wait),
        2 => (1..9_u32).prop_map(Happening::Resize),
        1 => Just(Happening::LoseSandbox),
        1 => Just(Happening::Restart),
    ];
    let names = ["first", "side1", "main", "other"];
    proptest!(ProptestConfig::with_cases(48), |(story in prop::collection::vec(happening, 0..40))| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            bench.engine.behave("first", exits(1, 0));
            bench.engine.behave("second", exits(1, 0));
            let sized = |size: u32| {
                let resources = format!(
                    r#""resources":{{"limits":{{"cpu":"{size}","memory":"{size}Mi"}}}},
                    "resizePolicy":[{{"resourceName":"memory","restartPolicy":"RestartContainer"}}]"#
                );
                WITH_SIDECARS.replace(r#""name":"main""#, &format!(r#""name":"main",{resources}"#))
            };
            let mut pod = bench.spawn(&sized(4));
            for happening in story {
                match happening {
                    Happening::Resize(size) => {
                        let mut changed: Pod = crate::testing::pod(&sized(size));
                        changed.metadata.uid = pod.handle.state.borrow().pod.metadata.uid.clone();
                        pod.handle.control().change(Arc::new(changed), Arc::default());
                    }
                    Happening::Exit(container, code) => {
                        if let Some(id) = bench.engine.running(names[container]) {
                            bench.engine.exit(&id, code);
                        }
                    }
                    Happening::Noise => bench.engine.noise(),
                    Happening::Wait(millis) => sleep(Duration::from_millis(millis)).await,
                    Happening::LoseSandbox => bench.engine.lose_sandbox(),
                    Happening::Restart => {
                        pod.handle.break_off().await;
                        pod = bench.spawn(&sized(4));
                    }
                }
            }
            pod.handle.delete(None);
            pod.gone().await;
            bench.assert_clean();
        });
    });
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_more_than_it_may_is_evicted() {
    let bench = Bench::new();
    let deaf = Behaviour {
        stops_after: None,
        ..Behaviour::default()
    };
    bench.engine.behave("c", deaf);
    let mut pod = bench.spawn(
        r#"{"restartPolicy":"Always","volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Mi"}}],
            "containers":[{"name":"c","image":"i"}]}"#,
    );
    pod.event(EventReason::Started, "c").await;
    let volume = bench
        .node
        .kubelet_root
        .join("pods/uid/volumes/kubernetes.io~empty-dir/v");
    std::fs::write(volume.join("some"), vec![1; 900_000]).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(bench.engine.running("c").is_some(), "it may take that much");
    let before = bench.engine.calls().len();
    std::fs::write(volume.join("more"), vec![1; 900_000]).unwrap();
    let said = pod.event(EventReason::Evicted, "").await.message;
    assert_eq!(said, "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\".");
    pod.event(EventReason::Phase, "").await;
    let (_, stop) = bench.engine.calls().remove(before);
    assert_eq!(
        stop, "stop c-0 1",
        "it has a second, however long the pod's grace period is"
    );
    let state = pod.handle.state.borrow().clone();
    assert_eq!(
        (state.status.phase.as_deref(), state.status.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
    // A daemon that comes later does not bring it to life again.
    pod.handle.break_off().await;
    let again = bench.spawn(
        r#"{"restartPolicy":"Always","volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Mi"}}],
            "containers":[{"name":"c","image":"i"}]}"#,
    );
    sleep(Duration::from_secs(60)).await;
    assert!(bench.engine.running("c").is_none());
    again.handle.delete(None);
    again.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_nothing_new_makes_nobody_look() {
    let bench = Bench::new();
    let mut pod = bench.spawn(
        r#"{"containers":[{"name":"c","image":"i","readinessProbe":{"exec":{"command":["check"]},
            "periodSeconds":1,"timeoutSeconds":1,"successThreshold":1,"failureThreshold":3}}]}"#,
    );
    pod.event(EventReason::Ready, "").await;
    sleep(Duration::from_secs(1)).await;
    let (looks, probes) = (bench.engine.looks(), bench.engine.seconds_of("exec").len());
    sleep(Duration::from_secs(100)).await;
    assert!(bench.engine.seconds_of("exec").len() >= probes + 99);
    assert_eq!(bench.engine.looks(), looks);
    let failing = Behaviour {
        exec_code: 1,
        ..Behaviour::default()
    };
    bench.engine.behave("c", failing);
    pod.event(EventReason::NotReady, "").await;
    assert!(bench.engine.looks() > looks);
    pod.handle.delete(None);
    pod.gone().await;
    bench.assert_clean();
}
