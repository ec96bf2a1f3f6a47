//! What starts the commands that are run to their end in one container.

use std::os::fd::OwnedFd;

use berth_runtime::cgroups::Subgroup;
use berth_runtime::{Error, ExecTarget, Launcher, Stdio, oci};

use crate::container::Container;
use crate::error::RequestError;

/// Of one container. The first command is started like any other process; who asks for a second one is going to ask every
/// few seconds, and a process waits in the container for that from then on.
#[derive(Default)]
pub(crate) struct Commands {
    has_run_one: bool,
    launcher: Option<Launcher>,
    /// The group that the last command left empty, for the next one.
    spare: Option<Subgroup>,
}

impl Commands {
    /// Keeps a command's group for the next one, unless something still runs in it: then it comes back.
    pub(crate) fn keep(&mut self, tree: Subgroup) -> Option<Subgroup> {
        if self.spare.is_none() && tree.is_unused() {
            self.spare = Some(tree);
            return None;
        }
        (!tree.remove_if_empty()).then_some(tree)
    }
}

impl Container {
    /// A group for a command of its own; `None` where no hierarchy is free of limits.
    pub(crate) fn group_of_command(&mut self, id: &str) -> Result<Option<Subgroup>, RequestError> {
        match self.commands.spare.take() {
            None => Ok(self.cgroup().subgroup(&format!("exec-{id}"))?),
            spare => Ok(spare),
        }
    }

    /// Starts a command. Returns its pid once its program runs.
    pub(crate) fn start_command(
        &mut self,
        args: &[String],
        streams: [OwnedFd; 3],
        tree: Option<&Subgroup>,
    ) -> Result<i32, RequestError> {
        self.check_running()?;
        if self.commands.launcher.is_none() && self.commands.has_run_one {
            self.make_launcher();
        }
        self.commands.has_run_one = true;
        if let Some(launcher) = &self.commands.launcher
            && Launcher::takes(args)
        {
            let launched = launcher.launch(args, streams, tree);
            if let Err(Error::Vanished(_)) = &launched {
                // Killed for the container's lack of memory, for instance. The next command gets another one.
                self.commands.launcher = None;
            }
            return Ok(launched?.as_raw());
        }
        let spec = self.exec_spec()?;
        let process = command(&spec, args);
        let [stdin, stdout, stderr] = streams;
        let stdio = Stdio::Fds {
            stdin,
            stdout,
            stderr,
        };
        let target = ExecTarget {
            subgroup: tree,
            ..self.exec_target(&spec)?
        };
        Ok(berth_runtime::exec(&target, &process, stdio, 0)?.pid.as_raw())
    }

    /// Without one, commands are started as the first one was.
    fn make_launcher(&mut self) {
        let made = self.exec_spec().and_then(|spec| {
            let process = command(&spec, &[String::new()]);
            let target = self.exec_target(&spec)?;
            if !Launcher::is_possible(&target, &process) {
                return Ok(None);
            }
            Ok(Some(Launcher::start(&target, &process)?))
        });
        match made {
            Ok(launcher) => self.commands.launcher = launcher,
            Err(error) => eprintln!("Commands of container {} start slowly: {error}", self.id),
        }
    }
}

/// The container's own process with other arguments.
pub(crate) fn command(spec: &oci::Spec, args: &[String]) -> oci::Process {
    oci::Process {
        args: args.to_vec(),
        terminal: false,
        ..spec.process.clone().unwrap_or_default()
    }
}
