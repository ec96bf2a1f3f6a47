//! Workers that come and go while their pod stays.

use super::*;

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
    bench.end(second).await;
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
            pulls: Pulls::default(),
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
    bench.end(pod).await;
    // Its end makes room.
    let again = bench.spawn(spec);
    again.handle.delete(None);
    again.gone().await;
}

/// A postStart hook that is cut off with its daemon is run again by the next one, and one that has done its work is not.
#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_was_cut_off_is_run_again() {
    let bench = Bench::new();
    let slow = Behaviour {
        exec_takes: Duration::from_secs(10),
        ..Behaviour::default()
    };
    bench.engine.behave("c", slow);
    let spec = r#"{"containers":[{"name":"c","image":"i","lifecycle":{"postStart":{"exec":{"command":["hook"]}}}}]}"#;
    let first = bench.spawn(spec);
    let hooks = |engine: &FakeEngine| engine.order_of(&["exec"]).len();
    bench.until("the hook", |engine| hooks(engine) == 1).await;
    first.handle.break_off().await;
    let mut second = bench.spawn(spec);
    second.event(EventReason::Ready, "c").await;
    assert_eq!(hooks(&bench.engine), 2);
    second.handle.break_off().await;
    let mut third = bench.spawn(spec);
    third.event(EventReason::Ready, "c").await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(hooks(&bench.engine), 2);
    assert_eq!(bench.engine.order_of(&["start"]), ["start c-0"]);
    bench.end(third).await;
}

/// What a status remembers of the one before it, it remembers of the one that an earlier daemon wrote.
#[tokio::test(start_paused = true)]
async fn a_status_goes_on_where_the_last_daemon_s_ended() {
    let bench = Bench::new();
    let spec = r#"{"containers":[{"name":"c","image":"i"}]}"#;
    let mut first = bench.spawn(spec);
    first.event(EventReason::Ready, "c").await;
    sleep(Duration::from_secs(50)).await;
    let conditions = |pod: &Running| pod.handle.state.borrow().status.conditions.clone().unwrap();
    let before = conditions(&first);
    first.handle.break_off().await;
    let mut second = bench.spawn(spec);
    second.event(EventReason::Ready, "c").await;
    assert_eq!(conditions(&second), before);
    bench.end(second).await;
}

/// When the hook of a container that is ended began, and began again after it was cut off, and when the container was told
/// to end then.
struct CutOff {
    hooks: [u64; 2],
    stop: u64,
}

impl CutOff {
    /// Has a pod with a grace period of 30 s and a preStop hook of `takes` seconds, and such `more` of its container; `wants`
    /// its end. The daemon dies `after` seconds of the hook, and the next one comes `pause` seconds later.
    async fn see(takes: u64, more: &str, wants: impl FnOnce(&Running), after: u64, pause: u64) -> Self {
        let bench = Bench::new();
        let slow = Behaviour {
            exec_takes: Duration::from_secs(takes),
            ..Behaviour::default()
        };
        bench.engine.behave("c", slow);
        let spec = format!(
            r#"{{"terminationGracePeriodSeconds":30,"containers":[{{"name":"c","image":"i",
                "lifecycle":{{"preStop":{{"exec":{{"command":["bye"]}}}}}}{more}}}]}}"#
        );
        let first = bench.spawn(&spec);
        bench
            .until("it runs", |engine| engine.running("c").is_some())
            .await;
        wants(&first);
        bench
            .until("the hook", |engine| !engine.seconds_of("exec").is_empty())
            .await;
        sleep(Duration::from_secs(after)).await;
        first.handle.break_off().await;
        sleep(Duration::from_secs(pause)).await;
        let second = bench.spawn(&spec);
        bench
            .until("its stop", |engine| !engine.seconds_of("stop c-0").is_empty())
            .await;
        let (hooks, stop) = (
            bench.engine.seconds_of("exec"),
            bench.engine.seconds_of("stop c-0"),
        );
        second.handle.delete(Some(Duration::ZERO));
        second.gone().await;
        bench.assert_clean();
        let hooks = hooks.try_into().expect("the hook ran twice");
        Self { hooks, stop: stop[0] }
    }
}

/// A container whose end was begun by a daemon that is no more, and is not wanted any more, has all its time when its
/// end is wanted again.
#[tokio::test(start_paused = true)]
async fn an_end_that_was_cut_off_takes_no_time_from_the_next() {
    let probe = r#","livenessProbe":{"tcpSocket":{"host":"127.0.0.1","port":1},"periodSeconds":10,"failureThreshold":3}"#;
    // The probe has to fail anew, and the hook has the time that it takes.
    let CutOff { hooks, stop } = CutOff::see(20, probe, |_| {}, 5, 100).await;
    assert!(stop >= hooks[1] + 20, "{hooks:?} {stop}");
}

/// The time that a container has to end in began with the daemon that told it to, whoever goes on with it.
#[tokio::test(start_paused = true)]
async fn an_end_that_goes_on_has_the_time_that_is_left() {
    let restart = |pod: &Running| pod.handle.control().restart(vec!["c".to_owned()]);
    let CutOff { hooks, stop } = CutOff::see(25, "", restart, 15, 0).await;
    assert!(stop < hooks[0] + 35, "{hooks:?} {stop}");
}
