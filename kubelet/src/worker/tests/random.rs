//! Random events.

use super::*;

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
        ForgetSandboxes,
        Vanish(usize),
        Fault(Fault),
        Restart,
    }
    let calls = [
        "sandbox",
        "create",
        "start",
        "stop ",
        "stop-sandbox",
        "update",
        "list",
    ];
    let answers = [Answer::Right, Answer::Refused, Answer::Lost];
    let fault = (
        0..calls.len(),
        1..4_u32,
        prop_oneof![Just(0), 1..60_u64],
        0..3_usize,
    )
        .prop_map(move |(call, times, takes, answer)| Fault {
            call: calls[call],
            times,
            takes: Duration::from_secs(takes),
            answer: answers[answer],
        });
    let happening = prop_oneof![
        4 => (0..4_usize, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(c, code)| Happening::Exit(c, code)),
        2 => Just(Happening::Noise),
        4 => prop_oneof![0..50_u64, 1000..400_000_u64].prop_map(Happening::Wait),
        2 => (1..9_u32).prop_map(Happening::Resize),
        1 => Just(Happening::LoseSandbox),
        1 => Just(Happening::ForgetSandboxes),
        1 => (0..4_usize).prop_map(Happening::Vanish),
        2 => fault.prop_map(Happening::Fault),
        1 => Just(Happening::Restart),
    ];
    let names = ["first", "side1", "main", "other"];
    proptest!(ProptestConfig::with_cases(96), |(story in prop::collection::vec(happening, 0..50))| {
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
                    Happening::ForgetSandboxes => bench.engine.forget_sandboxes(),
                    Happening::Vanish(container) => {
                        if let Some(id) = bench.engine.running(names[container]) {
                            bench.engine.vanish(&id);
                        }
                    }
                    Happening::Fault(fault) => bench.engine.fault(fault),
                    Happening::Restart => {
                        pod.handle.break_off().await;
                        pod = bench.spawn(&sized(4));
                    }
                }
            }
            bench.end(pod).await;
        });
    });
}
