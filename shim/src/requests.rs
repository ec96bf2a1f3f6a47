//! What clients ask for: one method a request.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use berth_runtime::oci;

use crate::container::Container;
use crate::error::RequestError;
use crate::exec::ExecProcess;
use crate::handler::Asked;
use crate::protocol::{CreateContainer, Event, Exec, Failure, Request, Response};
use crate::shim::Shim;

/// What to send back, and the descriptors to send along.
pub(crate) type Reply = (Result<Response, Failure>, Vec<OwnedFd>);

type Answer = Result<(Response, Vec<OwnedFd>), RequestError>;

impl Shim {
    /// Does what a client asks. `None` is an answer that comes later.
    pub(crate) fn handle(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
        client: u32,
        seq: u64,
    ) -> Option<Reply> {
        if let Request::Shutdown = request {
            self.begin_shutdown(Some((client, seq)));
            return None;
        }
        let asked = Asked { client, seq };
        let (request, fds) = self.hand_over(request, fds, asked)?;
        if let Request::Run(request) = request {
            let failed = self.run(&request, asked).err()?;
            return Some((Err(failed.into()), Vec::new()));
        }
        Some(match self.dispatch(request, fds, client) {
            Ok((response, fds)) => (Ok(response), fds),
            Err(error) => (Err(error.into()), Vec::new()),
        })
    }

    fn dispatch(&mut self, request: Request, fds: Vec<OwnedFd>, client: u32) -> Answer {
        let done = |()| (Response::Done, Vec::new());
        match request {
            Request::State => Ok((Response::State(self.state()), Vec::new())),
            Request::Subscribe => Ok((self.subscribe(client), Vec::new())),
            Request::Create(request) => self
                .create(&request)
                .map(|pid| (Response::Created { pid }, Vec::new())),
            Request::Start { container } => self.start(&container).map(done),
            Request::Kill {
                container,
                signal,
                all,
            } => self.container(&container)?.kill(signal, all).map(done),
            Request::Delete { container } => self.delete(&container).map(done),
            Request::Exec(request) => self.exec(&request, fds, client),
            Request::KillExec { exec } => self.kill_exec(&exec).map(done),
            Request::Resize { id, width, height } => self.resize(&id, width, height).map(done),
            Request::Attach { container } => self.attach(&container, fds).map(done),
            Request::CloseStdin { container } => self.close_stdin(&container).map(done),
            Request::ReopenLog { container } => self.reopen_log(&container).map(done),
            Request::FollowLog { container } => self.follow_log(&container, fds).map(done),
            Request::Update { container, resources } => self.update(&container, resources).map(done),
            // These are answered later.
            Request::Run(_) | Request::Shutdown => Ok(done(())),
        }
    }

    fn subscribe(&mut self, client: u32) -> Response {
        if let Some(client) = self.clients.get_mut(&client) {
            client.subscribed = true;
        }
        Response::State(self.state())
    }

    /// Refuses what can't be made now, by whichever runtime.
    pub(crate) fn check_create(&self, request: &CreateContainer) -> Result<(), RequestError> {
        if !is_one_component(&request.id) {
            return Err(RequestError::Invalid(format!(
                "A container's id is one path component, which {:?} is not",
                request.id
            )));
        }
        if self.number_of(&request.id).is_some() {
            return Err(RequestError::Exists {
                what: "container",
                id: request.id.clone(),
            });
        }
        let id = || request.id.clone();
        if self.shutdown.is_some() {
            return Err(RequestError::WrongState {
                what: "container",
                id: id(),
                state: "can't be made in a pod that ends",
            });
        }
        if self.sandbox.pause_pid().is_none() {
            let state = "can't be made, because the pod's pause has died and its namespaces with it";
            return Err(RequestError::WrongState {
                what: "container",
                id: id(),
                state,
            });
        }
        Ok(())
    }

    fn create(&mut self, request: &CreateContainer) -> Result<i32, RequestError> {
        self.check_create(request)?;
        let target = match &request.pid_target {
            Some(target) => Some(self.container(target)?.pid_namespace()?),
            None => None,
        };
        let number = self.next_number();
        let container = Container::create(request, number, &self.sandbox, target.as_ref(), &self.poller)?;
        let pid = container.live_pid().unwrap_or(0);
        self.containers.insert(number, container);
        Ok(pid)
    }

    fn start(&mut self, id: &str) -> Result<(), RequestError> {
        let number = self
            .number_of(id)
            .ok_or_else(|| RequestError::NoContainer(id.to_owned()))?;
        let container = self.container(id)?;
        match container.start() {
            Ok(at) => {
                self.emit(&Event::Started {
                    container: id.to_owned(),
                    at,
                });
                Ok(())
            }
            Err(error) => {
                // The exit record is there before the client hears that the program can't run.
                if let RequestError::Runtime(_) = &error
                    && let Some(exit_code) = container.await_end()
                {
                    self.container_reaped(number, exit_code);
                }
                Err(error)
            }
        }
    }

    fn delete(&mut self, id: &str) -> Result<(), RequestError> {
        if !is_one_component(id) {
            return Ok(());
        }
        if let Some(number) = self.number_of(id) {
            self.remove_container(number)?;
        }
        self.forget_exit(id)
    }

    /// Removes a container's exit record; none is fine.
    pub(crate) fn forget_exit(&self, id: &str) -> Result<(), RequestError> {
        self.exits.remove(id).map_err(RequestError::io(format!(
            "remove the exit record of container {id}"
        )))
    }

    /// Removes what there is of a container that does not run.
    pub(crate) fn remove_container(&mut self, number: u32) -> Result<(), RequestError> {
        let Some(container) = self.containers.get_mut(&number) else {
            return Ok(());
        };
        if container.is_running() {
            return Err(container.wrong_state("is running"));
        }
        container.delete()?;
        self.containers.remove(&number);
        self.execs
            .retain(|_, exec| exec.container != number || exec.pid().is_some() || exec.printed.is_some());
        Ok(())
    }

    /// Refuses an exec of an id that there is.
    pub(crate) fn check_exec(&mut self, id: &str) -> Result<(), RequestError> {
        self.forget_finished_execs();
        if self.execs.contains_key(id) {
            return Err(RequestError::Exists {
                what: "exec",
                id: id.to_owned(),
            });
        }
        Ok(())
    }

    fn exec(&mut self, request: &Exec, fds: Vec<OwnedFd>, client: u32) -> Answer {
        self.check_exec(&request.id)?;
        let number = self.number_of(&request.container);
        let container = number.and_then(|number| self.containers.get(&number));
        let (Some(number), Some(container)) = (number, container) else {
            return Err(RequestError::NoContainer(request.container.clone()));
        };
        let spec = container.exec_spec()?;
        let target = container.exec_target(&spec)?;
        let tree = container.cgroup().subgroup(&format!("exec-{}", request.id))?;
        let (exec, pid, master) = ExecProcess::start(request, (number, client), target, tree, fds)?;
        self.execs.insert(request.id.clone(), exec);
        Ok((Response::ExecStarted { pid }, master.into_iter().collect()))
    }

    fn kill_exec(&mut self, id: &str) -> Result<(), RequestError> {
        match self.execs.get(id) {
            Some(exec) => exec.kill(),
            None => Err(RequestError::NoExec(id.to_owned())),
        }
    }

    fn resize(&mut self, id: &str, width: u16, height: u16) -> Result<(), RequestError> {
        let failed = RequestError::io(format!("set the size of the terminal of {id}"));
        let has_terminal = match (self.execs.get(id), self.number_of(id)) {
            (Some(exec), _) => exec.resize(width, height),
            (None, Some(_)) => self.container(id)?.stdio.resize(width, height),
            (None, None) => return Err(RequestError::NoContainer(id.to_owned())),
        };
        if has_terminal.map_err(failed)? {
            return Ok(());
        }
        Err(RequestError::Invalid(format!(
            "{id} has no terminal whose size could be set"
        )))
    }

    fn attach(&mut self, id: &str, fds: Vec<OwnedFd>) -> Result<(), RequestError> {
        let container = self.container(id)?;
        if container.is_over() {
            return Err(container.wrong_state("has ended"));
        }
        let mut fds = fds.into_iter();
        let (Some(stdout), Some(stderr), input, None) = (fds.next(), fds.next(), fds.next(), fds.next())
        else {
            let message = "Attaching takes two descriptors (stdout, stderr), and a third for input";
            return Err(RequestError::Invalid(message.into()));
        };
        if input.is_some() && !container.stdio.has_stdin() {
            return Err(container.wrong_state("has no open standard input to attach to"));
        }
        container
            .stdio
            .attach(stdout, stderr, input)
            .map_err(RequestError::io(format!("attach to container {id}")))
    }

    fn close_stdin(&mut self, id: &str) -> Result<(), RequestError> {
        self.container(id)?.stdio.close_stdin();
        Ok(())
    }

    fn reopen_log(&mut self, id: &str) -> Result<(), RequestError> {
        let stdio = &mut self.container(id)?.stdio;
        stdio
            .reopen_log()
            .map_err(RequestError::io(format!("open the log of container {id} again")))
    }

    fn follow_log(&mut self, id: &str, fds: Vec<OwnedFd>) -> Result<(), RequestError> {
        let container = self.container(id)?;
        let Ok([eventfd]) = <[OwnedFd; 1]>::try_from(fds) else {
            return Err(RequestError::Invalid(
                "Following a log takes one descriptor, an eventfd".into(),
            ));
        };
        container
            .stdio
            .follow(eventfd)
            .map_err(RequestError::io(format!("follow the log of container {id}")))
    }

    fn update(&mut self, id: &str, resources: serde_json::Value) -> Result<(), RequestError> {
        let container = self.container(id)?;
        let resources: oci::LinuxResources = oci::from_value(resources).map_err(|error| {
            RequestError::Invalid(format!("The resources for container {id} make no sense: {error}"))
        })?;
        if container.live_pid().is_none() {
            return Err(container.wrong_state("has ended"));
        }
        container.update(&resources)
    }

    /// Its number among the containers.
    pub(crate) fn number_of(&self, id: &str) -> Option<u32> {
        self.containers
            .iter()
            .find(|(_, container)| container.id == id)
            .map(|(number, _)| *number)
    }

    /// The container of that id.
    pub(crate) fn container(&mut self, id: &str) -> Result<&mut Container, RequestError> {
        self.containers
            .values_mut()
            .find(|container| container.id == id)
            .ok_or_else(|| RequestError::NoContainer(id.to_owned()))
    }
}

/// Whether it can be the name of a file.
pub(crate) fn is_one_component(id: &str) -> bool {
    let mut components = Path::new(id).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == id)
}
