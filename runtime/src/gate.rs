//! Between a container that is set up and its program: the wait for the start.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::net::{SocketFlags, accept_with};

use crate::channel::{Channel, Message};
use crate::child::Setup;
use crate::create::hook_state;
use crate::error::Doing;
use crate::oci::ContainerState;
use crate::process::{FilterMoment, outlive_creator};
use crate::program::Program;
use crate::sys::end_when_asked;
use crate::{Error, Result, hooks};

/// Where the process waits for its start.
#[derive(Debug)]
pub(crate) enum Gate {
    /// At its creator.
    Channel,
    /// At its creator, and once detached at this socket.
    Listener(OwnedFd),
}

/// A process that only waits for its start.
pub(crate) struct Ready {
    pub(crate) path: Option<CString>,
    pub(crate) pid: Option<i32>,
}

impl Ready {
    /// Waits until the container is started. Returns the connection to the starter if that is not the creator.
    pub(crate) fn wait(&self, setup: &Setup<'_>) -> Result<Option<Channel>> {
        let creator = &setup.channel;
        let listener = match creator.receive().doing(|| "wait for the start".to_owned())? {
            Message::Ready => {
                outlive_creator()?;
                return Ok(None);
            }
            Message::Detach => match &setup.gate {
                Gate::Listener(listener) => listener,
                Gate::Channel => {
                    return Err(Error::Vanished("it was detached without a listener".to_owned()));
                }
            },
            _ => return Err(Error::Vanished("the runtime ended".to_owned())),
        };
        outlive_creator()?;
        end_when_asked();
        creator
            .send(&Message::Detach)
            .doing(|| "tell the runtime to go".to_owned())?;
        loop {
            let socket =
                accept_with(listener, SocketFlags::CLOEXEC).doing(|| "wait for the start".to_owned())?;
            let starter = Channel::from_socket(socket);
            if matches!(starter.receive(), Ok(Message::Ready)) {
                return Ok(Some(starter));
            }
        }
    }

    /// Runs the program; returns only if that failed.
    pub(crate) fn run(&self, setup: &Setup<'_>) -> Error {
        let Some(program) = &setup.program else {
            return Error::invalid("process", "it is missing: there is nothing to start");
        };
        match self.last_steps(setup, program) {
            Ok(path) => program.execute(&path),
            Err(error) => error,
        }
    }

    /// The hooks run under the filter, as in every other runtime.
    fn last_steps(&self, setup: &Setup<'_>, program: &Program) -> Result<CString> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => program.find()?,
        };
        match setup
            .spec
            .hooks
            .as_ref()
            .filter(|hooks| !hooks.start_container.is_empty())
        {
            None => {
                setup.identity.set_limits()?;
                setup.install_filter(FilterMoment::Started)?;
            }
            Some(hooks) => {
                setup.install_filter(FilterMoment::Started)?;
                let state = hook_state(
                    setup.spec,
                    setup.id,
                    setup.bundle,
                    self.pid,
                    ContainerState::Created,
                );
                hooks::run_start_container(hooks, &state, &program.environment())?;
                setup.identity.set_limits()?;
            }
        }
        Ok(path)
    }
}
