//! What makes a worker look at its pod again.

use berth_cri::EngineEvent;
use tokio::sync::mpsc;

use super::Command;
use super::execute::{Done, Failure};
use crate::plan::StepKey;
use crate::prober::ProbeReport;

/// What comes from outside.
pub(super) struct Inbox {
    pub(super) engine: Option<mpsc::UnboundedReceiver<EngineEvent>>,
    pub(super) commands: Option<mpsc::UnboundedReceiver<Command>>,
    pub(super) probes: mpsc::UnboundedReceiver<ProbeReport>,
    /// What the pod exceeds.
    pub(super) exceeded: mpsc::UnboundedReceiver<String>,
    /// Other pods have changed.
    pub(super) room: mpsc::UnboundedReceiver<()>,
}

/// What made a worker look at its pod again.
pub(super) enum Wake {
    /// Something in the engine; the lists tell what.
    Engine,
    Timer,
    Command(Command),
    Probe(ProbeReport),
    Exceeded(String),
    Step(StepKey, Result<Done, Failure>),
}

impl Inbox {
    pub(super) async fn next(&mut self) -> Wake {
        loop {
            tokio::select! {
                event = receive(&mut self.engine) => match event {
                    Some(_) => return Wake::Engine,
                    None => self.engine = None,
                },
                command = receive(&mut self.commands) => match command {
                    Some(command) => return Wake::Command(command),
                    None => self.commands = None,
                },
                Some(report) = self.probes.recv() => return Wake::Probe(report),
                Some(message) = self.exceeded.recv() => return Wake::Exceeded(message),
                Some(()) = self.room.recv() => return Wake::Timer,
            }
        }
    }

    pub(super) fn try_next(&mut self) -> Option<Wake> {
        fn ready<T>(channel: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
            channel.as_mut()?.try_recv().ok()
        }
        if ready(&mut self.engine).is_some() {
            return Some(Wake::Engine);
        }
        if let Some(command) = ready(&mut self.commands) {
            return Some(Wake::Command(command));
        }
        if let Ok(message) = self.exceeded.try_recv() {
            return Some(Wake::Exceeded(message));
        }
        self.probes.try_recv().ok().map(Wake::Probe)
    }
}

/// Receives; for ever if the channel is closed and was taken away.
async fn receive<T>(channel: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}
