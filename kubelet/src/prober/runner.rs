//! One probe of one container, from its start to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{ContainerId, Engine};
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::outcome::Outcome;
use super::target::{self, Action, Target};
use super::{exec, grpc, http_get, tcp_socket};
use crate::defaults::{MAX_PROBE_RETRIES, PROBE_PERIOD_SECONDS};
use crate::plan::ProbeKind;
use crate::probe::{Outcome as Counted, Threshold};

/// The first of the early attempts comes so long after the first attempt; each next one waits twice as long.
const EARLY_ATTEMPT: Duration = Duration::from_millis(100);

/// A probe of a running container.
#[derive(Clone, Debug)]
pub(crate) struct RunningProbe {
    pub(crate) id: ContainerId,
    pub(crate) kind: ProbeKind,
    pub(crate) probe: Probe,
    pub(crate) container: Container,
    /// The pod's address.
    pub(crate) ip: Option<IpAddr>,
    /// How often to ask, where the pod says it finer than in seconds.
    pub(crate) period: Option<Duration>,
    /// How long the container runs already.
    pub(crate) running_for: Duration,
    /// The verdict of an earlier daemon.
    pub(crate) verdict: Option<bool>,
}

/// What one counted attempt said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeReport {
    pub(crate) id: ContainerId,
    pub(crate) container: String,
    pub(crate) kind: ProbeKind,
    pub(crate) outcome: Outcome,
    /// The verdict after it.
    pub(crate) verdict: Option<bool>,
}

/// Probes until the probe has nothing more to say: a startup probe that succeeded, a startup or liveness probe that
/// failed (the container is going to be killed). Ends also when nobody listens any more.
pub(crate) async fn run(
    running: RunningProbe,
    engine: Arc<dyn Engine>,
    reports: mpsc::UnboundedSender<ProbeReport>,
) {
    let period = running.period.unwrap_or_else(|| {
        seconds(running.probe.period_seconds.or(Some(PROBE_PERIOD_SECONDS))).max(Duration::from_secs(1))
    });
    let delay = seconds(running.probe.initial_delay_seconds);
    sleep(delay.saturating_sub(running.running_for)).await;
    let mut threshold = Threshold::new(&running.probe, running.kind, running.verdict);
    let mut next = Instant::now();
    let mut first = running.verdict.is_none();
    let mut telling = Telling { reports, told: None };
    let mut outcome = attempt(&running, engine.as_ref()).await;
    loop {
        let succeeded = outcome == Outcome::Success;
        let verdict = enter(&mut threshold, &outcome);
        let ended = ends(running.kind, verdict);
        if !telling.tell(&running, outcome, verdict) || ended {
            return;
        }
        next = (next + period).max(Instant::now());
        if std::mem::take(&mut first)
            && running.tries_early(verdict)
            && let Some(outcome) = try_early(&running, engine.as_ref(), next).await
        {
            let verdict = enter(&mut threshold, &outcome);
            let ended = ends(running.kind, verdict);
            if !telling.tell(&running, outcome, verdict) || ended {
                return;
            }
        }
        let news = if succeeded && verdict == Some(true) {
            until_news(&running, engine.as_ref(), &telling, (&mut next, period)).await
        } else {
            None
        };
        outcome = match news {
            Some(outcome) => outcome,
            None => {
                sleep_until(next).await;
                attempt(&running, engine.as_ref()).await
            }
        };
    }
}

/// Where one more success changes nothing, whoever runs the commands need not tell of it. Waits for something else of an exec
/// probe, from the attempt at `next` on; `None` if an attempt is to be made then, which `next` may have been moved for.
async fn until_news(
    running: &RunningProbe,
    engine: &dyn Engine,
    telling: &Telling,
    (next, period): (&mut Instant, Duration),
) -> Option<Outcome> {
    let target = target::of_probe(&running.probe, &running.container, running.ip).ok()?;
    let Action::Exec(command) = &target.action else {
        return None;
    };
    let times = (next.saturating_duration_since(Instant::now()), period);
    let outcome = tokio::select! {
        outcome = exec::until_news(engine, &running.id, command, target.timeout, times) => outcome,
        () = telling.reports.closed() => return None,
    };
    // The attempts went on in the rhythm that they had.
    let now = Instant::now();
    while *next + period <= now {
        *next += period;
    }
    match outcome {
        Outcome::Failure(_) => Some(outcome),
        // The container may just have ended, and with it this probe. If not, the next attempt tells.
        Outcome::Error(_) => {
            *next += period;
            None
        }
        Outcome::Success | Outcome::Warning(_) => None,
    }
}

/// Who is told of attempts.
struct Telling {
    reports: mpsc::UnboundedSender<ProbeReport>,
    /// The last verdict that was told.
    told: Option<Option<bool>>,
}

impl Telling {
    /// Tells of an attempt that is news: one more success in a row is none, and every second it would wake the pod's worker.
    /// Returns whether anybody listens.
    fn tell(&mut self, running: &RunningProbe, outcome: Outcome, verdict: Option<bool>) -> bool {
        if outcome == Outcome::Success && self.told == Some(verdict) {
            return !self.reports.is_closed();
        }
        self.told = Some(verdict);
        self.reports.send(running.report(outcome, verdict)).is_ok()
    }
}

/// Attempts that only count if they succeed, within the first period.
///
/// A server that binds its port 50 ms after its start would otherwise be found ready a whole period later. Commands are
/// not run early: they cost more than a connection.
async fn try_early(running: &RunningProbe, engine: &dyn Engine, until: Instant) -> Option<Outcome> {
    let mut wait = EARLY_ATTEMPT;
    while Instant::now() + wait < until {
        sleep(wait).await;
        wait *= 2;
        let outcome = attempt(running, engine).await;
        if outcome.counts_as() == Some(Counted::Success) {
            return Some(outcome);
        }
    }
    None
}

/// Counts an attempt; returns the verdict after it.
fn enter(threshold: &mut Threshold, outcome: &Outcome) -> Option<bool> {
    if let Some(counted) = outcome.counts_as() {
        let _new = threshold.observe(counted);
    }
    threshold.verdict()
}

fn ends(kind: ProbeKind, verdict: Option<bool>) -> bool {
    match kind {
        ProbeKind::Startup => verdict.is_some(),
        ProbeKind::Liveness => verdict == Some(false),
        ProbeKind::Readiness => false,
    }
}

async fn attempt(running: &RunningProbe, engine: &dyn Engine) -> Outcome {
    let target = match target::of_probe(&running.probe, &running.container, running.ip) {
        Ok(target) => target,
        Err(message) => return Outcome::Error(message),
    };
    let mut outcome = Outcome::Error(String::new());
    // One that could not be made is made again.
    for _ in 0..MAX_PROBE_RETRIES {
        outcome = attempt_once(&running.id, &target, engine).await;
        if outcome.counts_as().is_some() {
            break;
        }
    }
    outcome
}

async fn attempt_once(id: &ContainerId, target: &Target, engine: &dyn Engine) -> Outcome {
    match &target.action {
        Action::Exec(command) => exec::attempt(engine, id, command, target.timeout).await,
        Action::HttpGet(get) => http_get::attempt(get, target.timeout).await,
        Action::Grpc(grpc) => grpc::attempt(grpc, target.timeout).await,
        Action::TcpSocket { host, port } => tcp_socket::attempt(host, *port, target.timeout).await,
    }
}

impl RunningProbe {
    fn report(&self, outcome: Outcome, verdict: Option<bool>) -> ProbeReport {
        let container = self.container.name.clone();
        ProbeReport {
            id: self.id.clone(),
            container,
            kind: self.kind,
            outcome,
            verdict,
        }
    }

    fn tries_early(&self, verdict: Option<bool>) -> bool {
        verdict != Some(true) && self.kind != ProbeKind::Liveness && self.probe.exec.is_none()
    }
}

fn seconds(value: Option<i32>) -> Duration {
    let seconds = value.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
