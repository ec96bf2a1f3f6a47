//! A container's log as a number that grows with it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use berth_shim::protocol::Request;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{Container, RunState, Sandbox, lock};
use crate::engine::EngineError;

/// Counts the growths of a container's log for whoever follows it. The shim is asked for them with the first follower.
#[derive(Debug, Default)]
pub(super) struct LogCounter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Counting(watch::Receiver<u64>),
    Complete,
}

impl LogCounter {
    /// The counter. Its sender is gone if the log is complete.
    pub(super) async fn watch(
        &self,
        sandbox: &Arc<Sandbox>,
        container: &Container,
    ) -> Result<watch::Receiver<u64>, EngineError> {
        if let Some(counter) = self.running() {
            return Ok(counter);
        }
        let Ok(shim) = sandbox.live_shim() else {
            return Ok(completed());
        };
        let failed =
            |error: std::io::Error| EngineError::Internal(format!("A log can't be followed: {error}."));
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let event = event.map_err(|errno| failed(errno.into()))?;
        let event = OwnedFd::from(event);
        let ours = event.try_clone().map_err(failed)?;
        let request = Request::FollowLog {
            container: container.id.0.clone(),
        };
        match shim.client.call_with(request, &[event]).await {
            Ok(_) => self.count(ours, container).map_err(failed),
            Err(failure) if container.has_ended() => {
                tracing::debug!(
                    "The log of an ended container is not followed: {}",
                    failure.message
                );
                Ok(completed())
            }
            Err(failure) => Err(EngineError::Internal(failure.message)),
        }
    }

    fn running(&self) -> Option<watch::Receiver<u64>> {
        match &*lock(&self.state) {
            State::Idle => None,
            State::Counting(counter) => Some(counter.clone()),
            State::Complete => Some(completed()),
        }
    }

    fn count(&self, event: OwnedFd, container: &Container) -> std::io::Result<watch::Receiver<u64>> {
        let mut state = lock(&self.state);
        if let State::Counting(counter) = &*state {
            return Ok(counter.clone());
        }
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(forward(
            pipe::Receiver::from_owned_fd_unchecked(event)?,
            sender,
            container.run.subscribe(),
        ));
        *state = State::Counting(receiver.clone());
        Ok(receiver)
    }

    /// Nothing more will be written.
    pub(super) fn complete(&self) {
        *lock(&self.state) = State::Complete;
    }
}

fn completed() -> watch::Receiver<u64> {
    watch::channel(0).1
}

/// Ends, and the counter with it, when the container has: the shim tells of an end only after its output.
///
/// An eventfd(2) reads as a pipe does, eight bytes at a time.
async fn forward(mut event: pipe::Receiver, sender: watch::Sender<u64>, mut run: watch::Receiver<RunState>) {
    let growths = async {
        let mut count = [0; 8];
        while let Ok(1..) = event.read(&mut count).await {
            sender.send_modify(|number| *number += 1);
        }
    };
    tokio::select! {
        () = growths => {}
        _ = run.wait_for(|state| matches!(state, RunState::Exited(_) | RunState::Unknown { .. })) => {
            sender.send_modify(|number| *number += 1);
        }
    }
}
