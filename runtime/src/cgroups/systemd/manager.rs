//! The calls to `org.freedesktop.systemd1.Manager`.

use std::time::Duration;

use nix::unistd::Pid;

use super::super::{CgroupError, Result};
use super::Scope;
use crate::dbus::Writer;
use crate::dbus::{Call, Connection, DbusError, Endpoint, Incoming, Value, session_bus, system_bus};

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A property of a unit.
pub(super) type Property = (String, Value);

/// A connection to systemd, about one scope.
pub(super) struct Manager<'a> {
    scope: &'a Scope,
    connection: Connection,
    version: Option<u32>,
}

impl<'a> Manager<'a> {
    /// Connects to the system's systemd or the user's: to itself if it listens for us, as it does for root and for the
    /// user, else over the bus.
    pub(super) fn connect(scope: &'a Scope) -> Result<Manager<'a>> {
        let failed = |error| CgroupError::NoSystemd {
            unit: scope.unit.clone(),
            error,
        };
        let connection = match private(scope.user) {
            Some(endpoint) => Connection::direct(&endpoint).or_else(|_| over_bus(scope.user)),
            None => over_bus(scope.user),
        };
        Ok(Manager {
            scope,
            connection: connection.map_err(failed)?,
            version: None,
        })
    }

    #[cfg(test)]
    pub(super) fn over(connection: Connection, scope: &'a Scope) -> Manager<'a> {
        Manager {
            scope,
            connection,
            version: None,
        }
    }

    /// Starts the scope and waits until it runs. One of the same name that failed before is forgotten first.
    pub(super) fn start_scope(&mut self, properties: &[Property]) -> Result<()> {
        let mut started = self.start_once(properties);
        if matches!(&started, Err(error) if error.is_remote("UnitExists")) {
            // It may be what is left of a failed one. If not, the second attempt says so.
            let _ = self.reset_failed();
            started = self.start_once(properties);
        }
        let result = started.and_then(|job| self.wait_for(&job));
        match result {
            Ok(outcome) if outcome == "done" => Ok(()),
            Ok(outcome) => {
                let _ = self.reset_failed();
                Err(self.job_failed("start", &outcome))
            }
            Err(error) => Err(self.failed("start", error)),
        }
    }

    fn start_once(&mut self, properties: &[Property]) -> Outcome<Incoming> {
        let unit = &self.scope.unit;
        self.connection
            .call(manager("StartTransientUnit", "ssa(sv)a(sa(sv))"), |arguments| {
                arguments.string(unit);
                arguments.string("replace");
                write(arguments, properties);
                arguments.array(8, |_| {});
            })
    }

    /// Stops the scope and waits until it is gone.
    pub(super) fn stop_scope(&mut self) -> Result<()> {
        let unit = self.scope.unit.as_str();
        let stopped = self.connection.call(manager("StopUnit", "ss"), |arguments| {
            arguments.string(unit);
            arguments.string("replace");
        });
        match stopped.and_then(|job| self.wait_for(&job)) {
            Ok(_) => {}
            Err(error) if error.is_remote("NoSuchUnit") => return Ok(()),
            Err(error) => return Err(self.failed("stop", error)),
        }
        // One that failed stays until it is forgotten; any other is gone by now.
        let _ = self.reset_failed();
        Ok(())
    }

    /// Changes properties until the unit's end.
    pub(super) fn set_properties(&mut self, properties: &[Property]) -> Result<()> {
        let unit = &self.scope.unit;
        let set = self
            .connection
            .call(manager("SetUnitProperties", "sba(sv)"), |arguments| {
                arguments.string(unit);
                Value::Bool(true).write(arguments);
                write(arguments, properties);
            });
        set.map(drop).map_err(|error| self.failed("change", error))
    }

    /// Moves a process into a group below the unit's, `/` for its own.
    pub(super) fn attach(&mut self, group: &str, pid: Pid) -> Result<()> {
        let unit = &self.scope.unit;
        let attached = self
            .connection
            .call(manager("AttachProcessesToUnit", "ssau"), |arguments| {
                arguments.string(unit);
                arguments.string(group);
                pids(pid).write(arguments);
            });
        attached
            .map(drop)
            .map_err(|error| self.failed("add a process to", error))
    }

    /// A property of systemd's own that is a string.
    pub(super) fn property(&mut self, name: &str) -> Result<String> {
        let get = Call {
            interface: "org.freedesktop.DBus.Properties",
            ..manager("Get", "ss")
        };
        let reply = self.connection.call(get, |arguments| {
            arguments.string(MANAGER);
            arguments.string(name);
        });
        let text = reply.and_then(|reply| {
            let mut body = reply.body("v")?;
            match body.signature()? {
                "s" => Ok(body.string()?.to_owned()),
                _ => Err(DbusError::Malformed("a property is not a string")),
            }
        });
        text.map_err(|error| self.failed("ask about", error))
    }

    /// systemd's version; asked for when it is needed first.
    pub(super) fn version(&mut self) -> Result<u32> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let version = number(&self.property("Version")?);
        self.version = Some(version);
        Ok(version)
    }

    fn reset_failed(&mut self) -> Outcome<Incoming> {
        let unit = self.scope.unit.as_str();
        self.connection
            .call(manager("ResetFailedUnit", "s"), |arguments| {
                arguments.string(unit)
            })
    }

    /// Waits for the end of the job that a reply names. Only the sender of the reply may announce it: anybody can send
    /// us signals over a bus.
    fn wait_for(&mut self, reply: &Incoming) -> Outcome<String> {
        let job = reply.body("o")?.string()?;
        self.connection.signal(PATIENCE, |signal| {
            if signal.member != "JobRemoved" || signal.sender != reply.sender {
                return None;
            }
            let mut body = signal.body("uoss").ok()?;
            body.u32().ok()?;
            let path = body.string().ok()?;
            body.string().ok()?;
            let result = body.string().ok()?;
            (path == job).then(|| result.to_owned())
        })
    }

    fn failed(&self, action: &'static str, error: DbusError) -> CgroupError {
        CgroupError::Systemd {
            action,
            unit: self.scope.unit.clone(),
            error,
        }
    }

    fn job_failed(&self, action: &'static str, outcome: &str) -> CgroupError {
        CgroupError::SystemdJob {
            action,
            unit: self.scope.unit.clone(),
            outcome: outcome.to_owned(),
        }
    }
}

type Outcome<T> = std::result::Result<T, DbusError>;

/// The socket at which systemd itself listens.
fn private(user: bool) -> Option<Endpoint> {
    let directory = match user {
        true => std::env::var("XDG_RUNTIME_DIR")
            .ok()
            .filter(|value| !value.is_empty())?,
        false if rustix::process::geteuid().is_root() => "/run".to_owned(),
        false => return None,
    };
    Some(Endpoint::Path(format!("{directory}/systemd/private")))
}

/// A bus has to be told which signals we want, and systemd that somebody wants them.
fn over_bus(user: bool) -> Outcome<Connection> {
    let mut connection = Connection::bus(&if user { session_bus()? } else { system_bus()? })?;
    let add_match = Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "AddMatch",
        signature: "s",
    };
    let rule = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
    connection.call(add_match, |arguments| arguments.string(rule))?;
    connection.call(manager("Subscribe", ""), |_| {})?;
    Ok(connection)
}

fn manager<'a>(member: &'a str, signature: &'a str) -> Call<'a> {
    Call {
        destination: SERVICE,
        path: OBJECT,
        interface: MANAGER,
        member,
        signature,
    }
}

pub(super) fn pids(pid: Pid) -> Value {
    Value::Array("u".to_owned(), vec![Value::U32(pid.as_raw().unsigned_abs())])
}

fn write(arguments: &mut Writer, properties: &[Property]) {
    arguments.array(8, |list| {
        for (name, value) in properties {
            list.align(8);
            list.string(name);
            value.write_variant(list);
        }
    });
}

/// The number in a version: `252.39-1~deb12u1`, `v245`, `254-rc1`.
fn number(version: &str) -> u32 {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::fake::{Reply, Server};

    const JOB: &str = "/org/freedesktop/systemd1/job/7";

    fn scope() -> Scope {
        super::super::name::parse("test.slice:berth:x", "x", false).unwrap()
    }

    fn object(path: &str) -> Reply {
        Reply::typed("o", vec![Value::Text(path.to_owned())])
    }

    fn removed(job: &str, result: &str) -> Reply {
        let texts = [job, "berth-x.scope", result].map(|text| Value::Text(text.to_owned()));
        let body = std::iter::once(Value::U32(7)).chain(texts).collect();
        Reply::signal_typed("JobRemoved", "uoss", body)
    }

    fn with_manager<T>(server: &Server, act: impl FnOnce(&mut Manager<'_>) -> T) -> T {
        let scope = scope();
        act(&mut Manager::over(
            Connection::direct(&server.endpoint()).unwrap(),
            &scope,
        ))
    }

    #[test]
    fn a_scope_that_failed_before_is_forgotten_first() {
        let mut calls = 0;
        let server = Server::start(move |call| {
            calls += 1;
            let expected = ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"];
            assert_eq!(call.member, expected[calls - 1]);
            match calls {
                1 => vec![Reply::error(
                    "org.freedesktop.systemd1.UnitExists",
                    "Unit exists.",
                )],
                2 => vec![Reply::values(Vec::new())],
                // The job is over before the reply comes, and another one too.
                _ => {
                    let mut body = call.body("ssa(sv)a(sa(sv))").unwrap();
                    assert_eq!(body.string().unwrap(), "berth-x.scope");
                    vec![removed("/other", "failed"), removed(JOB, "done"), object(JOB)]
                }
            }
        });
        with_manager(&server, |manager| {
            manager
                .start_scope(&[("Delegate".to_owned(), Value::Bool(true))])
                .unwrap();
        });
    }

    #[test]
    fn failures_name_the_unit() {
        let server = Server::start(|call| match call.member.as_str() {
            "StartTransientUnit" => vec![object(JOB), removed(JOB, "timeout")],
            "SetUnitProperties" => vec![Reply::error(
                "org.freedesktop.DBus.Error.InvalidArgs",
                "No such property",
            )],
            "StopUnit" => vec![Reply::error(
                "org.freedesktop.systemd1.NoSuchUnit",
                "Unit not loaded.",
            )],
            _ => vec![Reply::values(Vec::new())],
        });
        with_manager(&server, |manager| {
            let error = manager.start_scope(&[]).unwrap_err().to_string();
            assert!(
                error.contains("berth-x.scope") && error.contains("timeout"),
                "{error}"
            );
            let error = manager.set_properties(&[]).unwrap_err().to_string();
            assert!(
                error.contains("berth-x.scope") && error.contains("No such property"),
                "{error}"
            );
            manager.stop_scope().unwrap();
        });
    }

    #[test]
    fn versions() {
        for (text, expected) in [
            ("252.39-1~deb12u1", 252),
            ("v245.4-1.fc32", 245),
            ("254-rc1", 254),
            ("", 0),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn the_version_is_asked_for_once() {
        let mut calls = 0;
        let server = Server::start(move |call| {
            calls += 1;
            assert_eq!((call.member.as_str(), calls), ("Get", 1));
            let version = Value::Variant(Box::new(Value::Text("252 (252.1)".to_owned())));
            vec![Reply::values(vec![version])]
        });
        with_manager(&server, |manager| {
            assert_eq!(
                (manager.version().unwrap(), manager.version().unwrap()),
                (252, 252)
            );
        });
    }
}
