//! The configuration of a container: `config.json` of the
//! [OCI runtime specification](https://github.com/opencontainers/runtime-spec/blob/main/config.md), for Linux.
//!
//! Types and fields are named as there, fields in Rust's case. What may be missing is an empty string, path or list,
//! `false`, or `None` where a zero would mean something else; a missing field, a null and a zero value are the same,
//! as they are for other runtimes. Types say what can be written, not what makes sense: that is checked where it
//! is used.

mod decode;
mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use decode::{At, Decode, DecodeError};
pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;

use decode::{names, objects};

/// Reads a configuration, or a part of one, from a JSON text.
///
/// # Errors
/// When the text is not JSON, or has a value that its field can't have; the phrase names line and column, or the field.
pub fn from_slice<T: Decode>(text: &[u8]) -> Result<T, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    from_value(value).map_err(|error| error.to_string())
}

/// Reads a configuration, or a part of one, from a JSON value.
///
/// # Errors
/// When a field has a value that it can't have.
pub fn from_value<T: Decode>(value: Value) -> Result<T, DecodeError> {
    T::decode(value, &At::TOP)
}

objects! {
    /// A container's configuration.
    struct Spec {
        /// The version of the specification that the configuration follows.
        "ociVersion" version: String,
        /// The root file system.
        "root" root: Option<Root>,
        /// What is mounted beyond the root, in this order.
        "mounts" mounts: Vec<Mount>,
        /// The container's program.
        "process" process: Option<Process>,
        /// The host name that the container sees.
        "hostname" hostname: String,
        /// The NIS domain name that the container sees.
        "domainname" domainname: String,
        /// Programs to run at moments of the container's life.
        "hooks" hooks: Option<Hooks>,
        /// What whoever made the configuration wants to remember.
        "annotations" annotations: BTreeMap<String, String>,
        /// What is particular to Linux.
        "linux" linux: Option<Linux>,
        /// What is particular to Solaris: refused.
        "solaris" solaris: Option<Foreign>,
        /// What is particular to Windows: refused.
        "windows" windows: Option<Foreign>,
        /// What is particular to virtual machines: refused.
        "vm" vm: Option<Foreign>,
        /// What is particular to z/OS: refused.
        "zos" zos: Option<Foreign>,
        /// What is particular to FreeBSD: refused.
        "freebsd" freebsd: Option<Foreign>,
    }

    /// The root file system.
    struct Root {
        /// The directory, relative to the bundle or absolute.
        "path" path: PathBuf,
        /// It can't be written to.
        "readonly" readonly: bool,
    }

    /// Something that is mounted.
    struct Mount {
        /// Where, in the container; a relative path starts at its root.
        "destination" destination: PathBuf = required,
        /// The type of file system; not looked at for bind mounts.
        "type" typ: String,
        /// The device, directory or file, relative to the bundle or absolute, or any name.
        "source" source: PathBuf,
        /// As mount(8) knows them, and some more.
        "options" options: Vec<String>,
        /// User ids of the source as the container sees them.
        "uidMappings" uid_mappings: Vec<LinuxIdMapping>,
        /// Group ids of the source as the container sees them.
        "gidMappings" gid_mappings: Vec<LinuxIdMapping>,
    }

    /// Programs to run at moments of a container's life.
    struct Hooks {
        /// In the runtime's namespaces, after the container's have been made.
        "prestart" prestart: Vec<Hook>,
        /// The same, by its newer name.
        "createRuntime" create_runtime: Vec<Hook>,
        /// In the container's namespaces, before its root is entered.
        "createContainer" create_container: Vec<Hook>,
        /// In the container, right before its program.
        "startContainer" start_container: Vec<Hook>,
        /// In the runtime's namespaces, after the program has begun.
        "poststart" poststart: Vec<Hook>,
        /// In the runtime's namespaces, after the container was deleted.
        "poststop" poststop: Vec<Hook>,
    }

    /// A program that is given the container's state on its standard input.
    struct Hook {
        /// The program, absolute.
        "path" path: PathBuf = required,
        /// Its arguments, the name that it is called by first.
        "args" args: Vec<String>,
        /// Its environment.
        "env" env: Vec<String>,
        /// After how many seconds it is killed.
        "timeout" timeout: Option<i64>,
    }
}

/// A section of the configuration that is for another platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign;

impl Serialize for Foreign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

impl Decode for Foreign {
    fn decode(_: Value, _: &At<'_>) -> Result<Foreign, DecodeError> {
        Ok(Foreign)
    }
}

names! {
    /// Where a container is in its life.
    enum ContainerState {
        /// It is being made.
        "creating" Creating,
        /// It waits for its start.
        "created" Created,
        /// Its program runs.
        "running" Running,
        /// Its program has ended.
        "stopped" Stopped,
        /// Its processes are frozen.
        "paused" Paused,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_null_and_zero_are_the_same() {
        for text in [
            r#"{"ociVersion":"1.2.0"}"#,
            r#"{"ociVersion":"1.2.0","process":null,"mounts":null,"hostname":""}"#,
        ] {
            let spec: Spec = from_slice(text.as_bytes()).unwrap();
            assert_eq!(
                spec,
                Spec {
                    version: "1.2.0".to_owned(),
                    ..Spec::default()
                },
                "{text}"
            );
        }
    }

    #[test]
    fn properties_that_are_not_known_are_passed_over() {
        let spec: Spec = from_slice(br#"{"x":1,"root":{"path":"r","y":[]}}"#).unwrap();
        assert_eq!(spec.root.unwrap().path, PathBuf::from("r"));
    }

    #[test]
    fn what_can_not_be_is_named_with_its_place() {
        let cases = [
            ("[]", "it must be an object"),
            ("{", "EOF"),
            (r#"{"ociVersion":1}"#, "ociVersion: it must be a string"),
            (r#"{"hostname":"a\u0000b"}"#, "hostname: it has a NUL byte"),
            (
                r#"{"process":{"user":{"uid":-1}}}"#,
                "process.user.uid: it must be an integer between 0 and 4294967295",
            ),
            (
                r#"{"process":{"user":{"uid":1.5}}}"#,
                "process.user.uid: it must be an integer",
            ),
            (
                r#"{"process":{"args":["a",2]}}"#,
                "process.args[1]: it must be a string",
            ),
            (
                r#"{"process":{"terminal":"yes"}}"#,
                "process.terminal: it must be true or false",
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"pid"},{}]}}"#,
                "linux.namespaces[1].type: it is missing",
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"space"}]}}"#,
                r#"linux.namespaces[0].type: "space" is not known"#,
            ),
            (
                r#"{"linux":{"resources":{"rdma":{"mlx":{"hcaHandles":"x"}}}}}"#,
                "linux.resources.rdma.mlx.hcaHandles: it must be an integer",
            ),
            (r#"{"mounts":{}}"#, "mounts: it must be an array"),
        ];
        for (text, expected) in cases {
            let error = from_slice::<Spec>(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "[".repeat(100_000);
        assert!(from_slice::<Spec>(text.as_bytes()).is_err());
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let value = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [{ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }],
            "annotations": { "a": "b" },
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "network", "path": "/x" }],
                "resources": { "memory": { "limit": -1 }, "devices": [{ "allow": true, "type": "c", "major": 1 }] },
                "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] },
            },
        });
        let spec: Spec = from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), value);
    }
}
