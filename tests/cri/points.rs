//! The daemon is killed just before and just after each call by which it, or what it starts, changes something. The next
//! daemon is asked for the same again: that joins or succeeds, and when all is removed nothing is left.
//!
//! By default a few points of each verb are tried; `BERTH_CRASH_POINTS` sets how many, and `all` is all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use berth_cri::v1;
use berth_tests::Process;
use nix::unistd::Pid;
use tonic::Status;

use crate::daemon::{Client, Daemon, PATIENCE, container};
use crate::tracer::{Tracer, Whose};

/// The verbs of a pod's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    RunPod,
    Create,
    Start,
    Stop,
    Remove,
    StopPod,
    RemovePod,
}

const LIFE: [Verb; 7] = [
    Verb::RunPod,
    Verb::Create,
    Verb::Start,
    Verb::Stop,
    Verb::Remove,
    Verb::StopPod,
    Verb::RemovePod,
];

/// A life that takes longer is worth a look.
const SLOW: Duration = Duration::from_secs(3);

/// One pod on its way.
struct Pod {
    config: v1::PodSandboxConfig,
    sandbox: String,
    container: String,
}

impl Pod {
    async fn go(&mut self, client: &mut Client, verb: Verb) -> Result<(), Status> {
        match verb {
            Verb::RunPod => self.sandbox = client.try_run(&self.config).await?,
            Verb::Create => {
                let sleeping = container("c", &["sleep", "10000"]);
                self.container = client.create(&self.sandbox, &self.config, sleeping).await?;
            }
            Verb::Start => client.start(&self.container).await?,
            Verb::Stop => client.stop(&self.container, 0).await?,
            Verb::Remove => client.remove(&self.container).await?,
            Verb::StopPod => client.stop_pod(&self.sandbox).await?,
            Verb::RemovePod => client.remove_pod(&self.sandbox).await?,
        }
        Ok(())
    }
}

/// A whole life, in which the daemon is killed at the n-th moment of a verb. Returns how many moments were seen.
fn life(daemon: &mut Daemon, whose: Whose, at: Verb, nth: usize) -> usize {
    let point = format!("{at:?} at moment {nth} of {whose:?}");
    let began = Instant::now();
    let (before, after) = LIFE.split_at(LIFE.iter().position(|verb| *verb == at).unwrap());
    let mut pod = Pod {
        config: daemon.sandbox("p"),
        sandbox: String::new(),
        container: String::new(),
    };
    let tracer = daemon.with(async |mut client| {
        for verb in before {
            pod.go(&mut client, *verb).await.unwrap();
        }
        let tracer = Tracer::follow(daemon.pid(), shims(daemon), whose, nth);
        // It is cut off, or it is not.
        let outcome = tokio::time::timeout(PATIENCE, pod.go(&mut client, at)).await;
        outcome.unwrap_or_else(|_| panic!("{point}: no answer")).ok();
        tracer
    });
    daemon.kill();
    // The tracer has to see the end before its parent has taken it.
    let seen = tracer.end();
    daemon.restart_any();
    daemon.with(async |mut client| {
        for verb in after {
            let outcome = tokio::time::timeout(PATIENCE, pod.go(&mut client, *verb)).await;
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(status)) => panic!("{point}: {verb:?} afterwards: {status}"),
                Err(_) => panic!("{point}: {verb:?} does not answer afterwards"),
            }
        }
        let left = client
            .runtime
            .list_pod_sandbox(v1::ListPodSandboxRequest { filter: None });
        assert_eq!(left.await.unwrap().into_inner().items, [], "{point}");
    });
    daemon.forget("p");
    if began.elapsed() > SLOW {
        println!("{point}: it took {:?}", began.elapsed());
    }
    seen
}

/// The processes of pods' shims.
fn shims(daemon: &Daemon) -> Vec<Pid> {
    let all = daemon.node.processes().into_iter();
    let is_shim = |process: &Process| process.command.contains("berth-oci shim ");
    all.filter(is_shim).map(|shim| Pid::from_raw(shim.pid)).collect()
}

/// What there is beside the daemon itself.
fn inventory(daemon: &Daemon) -> BTreeSet<String> {
    let own = format!("+ process {} ", daemon.pid());
    let lines = daemon.node.leftovers().into_iter();
    lines.filter(|line| !line.starts_with(&own)).collect()
}

fn chosen(moments: usize, usually: usize) -> Vec<usize> {
    let wanted = std::env::var("BERTH_CRASH_POINTS").unwrap_or_default();
    let wanted = match wanted.as_str() {
        "all" => moments,
        number => number.parse().unwrap_or(usually),
    };
    let wanted = wanted.min(moments);
    // The middles of as many parts of equal length; all of them if there is one for each.
    (0..wanted)
        .map(|part| (2 * part + 1) * moments / (2 * wanted) + 1)
        .collect()
}

fn is_clean(daemon: &Daemon, clean: &BTreeSet<String>, point: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = inventory(daemon);
        let more: Vec<_> = now.difference(clean).collect();
        if more.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{point} left {more:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn killed_at_calls(whose: Whose, usually: usize) {
    let mut daemon = Daemon::start();
    // What comes with the first pod stays: the network's bridge, its rules.
    life(&mut daemon, whose, Verb::RemovePod, usize::MAX);
    let clean = inventory(&daemon);
    let mut tried = 0;
    for verb in LIFE {
        let moments = life(&mut daemon, whose, verb, usize::MAX);
        for nth in chosen(moments, usually) {
            life(&mut daemon, whose, verb, nth);
            is_clean(
                &daemon,
                &clean,
                &format!("{verb:?} at moment {nth} of {moments} of {whose:?}"),
            );
            tried += 1;
        }
        println!("{verb:?}: {moments} moments of {whose:?}");
    }
    assert!(tried > 0);
    daemon.finish();
}

#[test]
fn the_daemon_is_killed_at_its_own_calls() {
    killed_at_calls(Whose::Own, 3);
}

#[test]
fn the_daemon_is_killed_at_calls_of_what_works_for_it() {
    killed_at_calls(Whose::Others, 2);
}
