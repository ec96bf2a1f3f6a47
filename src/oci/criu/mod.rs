//! criu, which writes processes to files and makes them again from there: its service (`criu swrk`), a program that
//! takes requests and tells of its progress over a socket. The numbers of fields are those of criu's `rpc.proto`.

mod directories;
mod message;
pub(crate) mod option;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};

use crate::arguments::Arguments;
use crate::failure::{Attempt, Failure, usage};

pub(crate) use directories::Directories;
pub(crate) use message::Message;
use message::{Value, parse};

/// What criu is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Write the container to files, and end it or not.
    Dump = 1,
    /// Make the container from files.
    Restore = 2,
    /// Write its memory only, and let it go on.
    PreDump = 4,
    /// Say what is supported.
    FeatureCheck = 9,
    /// Say which version this is.
    Version = 10,
    /// As [`Request::PreDump`], but it is the only one: criu waits for no other.
    SinglePreDump = 13,
}

const NOTIFY: u64 = 6;
/// It was killed, or failed in a way that it does not tell of.
const NO_ANSWER: &str = "criu ended without an answer.";

/// The file in which the names of the container's standard streams are kept beside criu's own.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";
/// How much criu writes to its log.
const LOG_LEVEL: u64 = 4;

/// What criu tells while it works.
#[derive(Debug)]
pub(crate) struct Notification {
    /// The moment's name.
    pub(crate) moment: String,
    /// The process that it is about.
    pub(crate) pid: i32,
    /// What came along.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// A running criu.
#[derive(Debug)]
pub(crate) struct Criu {
    child: Child,
    socket: OwnedFd,
}

/// The fields of an answer that are looked at.
#[derive(Debug, Default)]
struct Answer {
    kind: u64,
    success: bool,
    errno: u64,
    message: String,
    restored: i32,
    notification: (String, i32),
    version: u64,
    features: [bool; 2],
}

impl Criu {
    /// Starts criu. It inherits the standard streams and what the caller has open across an exec.
    pub(crate) fn start() -> Result<Criu, Failure> {
        let doing = || "start criu".to_owned();
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .attempt(doing)?;
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).attempt(doing)?;
        let child = match Command::new("criu")
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .spawn()
        {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(usage(
                    "Checkpoints are made and restored by criu, which is not found in PATH; install it.",
                ));
            }
            other => other.attempt(doing)?,
        };
        Ok(Criu { child, socket: ours })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Sends a request, lets `told` act on each notification, and returns the answer.
    fn ask(
        &mut self,
        request: Request,
        message: &Message,
        told: &mut dyn FnMut(Notification) -> Result<(), Failure>,
    ) -> Result<Answer, Failure> {
        self.send(message)?;
        loop {
            let (answer, descriptor) = self.receive()?;
            if !answer.success {
                let said = if answer.message.is_empty() {
                    std::io::Error::from_raw_os_error(i32::try_from(answer.errno).unwrap_or(0)).to_string()
                } else {
                    answer.message.trim().replace('\n', " ")
                };
                return Err(usage(format!("criu failed: {said}.")));
            }
            if answer.kind != NOTIFY {
                return if answer.kind == request as u64 {
                    Ok(answer)
                } else {
                    Err(usage(format!(
                        "criu gave an answer of kind {} to a question of kind {}.",
                        answer.kind, request as u64
                    )))
                };
            }
            let (moment, pid) = answer.notification;
            told(Notification {
                moment,
                pid,
                descriptor,
            })?;
            let mut heard = Message::default();
            self.send(heard.number(1, NOTIFY).switch(3, true))?;
        }
    }

    fn send(&self, message: &Message) -> Result<(), Failure> {
        match send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(usage(NO_ANSWER)),
            other => other.map(|_| ()).attempt(|| "talk to criu".to_owned()),
        }
    }

    fn receive(&self) -> Result<(Answer, Option<OwnedFd>), Failure> {
        const LONGEST: usize = 40 * 1024;
        let mut buffer = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            match recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Err(usage(NO_ANSWER)),
                other => break other.attempt(|| "hear from criu".to_owned())?,
            }
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let answer = Some(&buffer[..received.bytes]).filter(|text| !text.is_empty());
        let answer = answer.ok_or_else(|| usage(NO_ANSWER))?;
        let answer = decode(answer).ok_or_else(|| usage("criu's answer is not understood."))?;
        Ok((answer, descriptor))
    }

    /// Waits for the end of criu, which comes by itself after an answer.
    fn end(mut self) {
        drop(self.socket);
        let _ = self.child.wait();
    }
}

/// Runs one request. Returns the pid of a restored container.
pub(crate) fn run(
    mut criu: Criu,
    request: Request,
    options: &Message,
    told: &mut dyn FnMut(Notification) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    let mut message = Message::default();
    message.number(1, request as u64).message(2, options);
    let outcome = criu.ask(request, &message, told);
    criu.end();
    Ok(outcome?.restored)
}

/// Whether there is a program of that name, which may still turn out to be unable to work here.
pub(crate) fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join("criu").is_file())
}

/// From this version on there is [`Request::SinglePreDump`].
pub(crate) const SINGLE_PRE_DUMP: u64 = 31_700;

/// The version as one number, 31701 for 3.17.1.
pub(crate) fn version() -> Result<u64, Failure> {
    let mut message = Message::default();
    message.number(1, Request::Version as u64);
    let mut criu = Criu::start()?;
    let answer = criu.ask(Request::Version, &message, &mut |_| Ok(()));
    criu.end();
    Ok(answer?.version)
}

/// Fails unless criu, on this kernel, can track changes of memory, or restore it on demand.
pub(crate) fn require(track_memory: bool, lazy_pages: bool) -> Result<(), Failure> {
    let (mut message, mut features) = (Message::default(), Message::default());
    features.switch(1, track_memory).switch(2, lazy_pages);
    message
        .number(1, Request::FeatureCheck as u64)
        .message(5, &features);
    let mut criu = Criu::start()?;
    let answer = criu.ask(Request::FeatureCheck, &message, &mut |_| Ok(()));
    criu.end();
    let [tracks, lazy] = answer?.features;
    if track_memory && !tracks || lazy_pages && !lazy {
        return Err(usage(
            "criu can't do that on this kernel: see criu check --feature mem_track and lazy_pages.",
        ));
    }
    Ok(())
}

fn decode(text: &[u8]) -> Option<Answer> {
    let mut answer = Answer::default();
    for field in parse(text)? {
        match field {
            (1, Value::Number(kind)) => answer.kind = kind,
            (2, Value::Number(success)) => answer.success = success != 0,
            (4, Value::Bytes(restored)) => answer.restored = number_in(restored, 1)?,
            (5, Value::Bytes(notify)) => {
                for field in parse(notify)? {
                    if let (1, Value::Bytes(moment)) = field {
                        answer.notification.0 = String::from_utf8_lossy(moment).into_owned();
                    }
                }
                answer.notification.1 = number_in(notify, 2)?;
            }
            (7, Value::Number(errno)) => answer.errno = errno,
            (8, Value::Bytes(features)) => {
                answer.features = [number_in(features, 1)? != 0, number_in(features, 2)? != 0];
            }
            (9, Value::Bytes(message)) => answer.message = String::from_utf8_lossy(message).into_owned(),
            (10, Value::Bytes(version)) => {
                let part = |field| number_in(version, field).and_then(|n| u64::try_from(n).ok());
                answer.version = part(1)? * 10_000 + part(2)? * 100 + part(4)?;
            }
            _ => {}
        }
    }
    Some(answer)
}

/// A number of a message, 0 if it has none of that field.
fn number_in(message: &[u8], field: u64) -> Option<i32> {
    let found = parse(message)?
        .into_iter()
        .find_map(|(number, value)| match value {
            Value::Number(value) if number == field => Some(value),
            _ => None,
        });
    i32::try_from(found.unwrap_or(0).cast_signed()).ok()
}

/// Adds the options that both directions share.
pub(crate) fn common<'a>(
    arguments: &Arguments,
    directories: &Directories,
    log: &str,
    options: &'a mut Message,
) -> Result<&'a mut Message, Failure> {
    use option::*;
    options
        .signed(IMAGES_DIR_FD, directories.images.as_raw_fd())
        .number(LOG_LEVEL, self::LOG_LEVEL)
        .text(LOG_FILE, log)
        .switch(NOTIFY_SCRIPTS, true)
        .switch(MANAGE_CGROUPS, true)
        .number(
            MANAGE_CGROUPS_MODE,
            cgroups_mode(arguments.text("manage-cgroups-mode")?)?,
        )
        .number(EMPTY_NS, empty_namespaces(arguments)?)
        .switch(ORPHAN_PTS_MASTER, true);
    for (flag, field) in [
        ("shell-job", SHELL_JOB),
        ("tcp-established", TCP_ESTABLISHED),
        ("ext-unix-sk", EXT_UNIX_SK),
        ("file-locks", FILE_LOCKS),
        ("auto-dedup", AUTO_DEDUP),
        ("lazy-pages", LAZY_PAGES),
        ("link-remap", LINK_REMAP),
        ("tcp-skip-in-flight", TCP_SKIP_IN_FLIGHT),
        ("leave-running", LEAVE_RUNNING),
    ] {
        options.switch(field, arguments.switch(flag)?);
    }
    if let Some(work) = &directories.work {
        options.signed(WORK_DIR_FD, work.as_raw_fd());
    }
    Ok(options)
}

/// A container's own settings for criu, if an annotation names a file with them. It has to be trusted.
pub(crate) fn configuration_file(annotations: &std::collections::BTreeMap<String, String>) -> &str {
    annotations
        .get("org.criu.config")
        .map_or("/etc/criu/runc.conf", String::as_str)
}

fn cgroups_mode(name: Option<&str>) -> Result<u64, Failure> {
    match name {
        None => Ok(6),
        Some("ignore") => Ok(0),
        Some("soft") => Ok(3),
        Some("full") => Ok(4),
        Some("strict") => Ok(5),
        Some(other) => Err(usage(format!(
            "--manage-cgroups-mode is {other:?}, not soft, full, strict or ignore."
        ))),
    }
}

/// The content of a network namespace is others' business, so it is always left out.
fn empty_namespaces(arguments: &Arguments) -> Result<u64, Failure> {
    const NETWORK: u64 = 0x4000_0000;
    match arguments.all("empty-ns")?.iter().find(|name| *name != "network") {
        None => Ok(NETWORK),
        Some(other) => Err(usage(format!(
            "--empty-ns is {other:?}; only network can be left empty."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        // RESTORE, success, restored pid 300.
        let answer = decode(b"\x08\x02\x10\x01\x22\x03\x08\xac\x02").unwrap();
        assert_eq!((answer.kind, answer.success, answer.restored), (2, true, 300));
        // NOTIFY, success, "post-restore" of 7.
        let answer = decode(b"\x08\x06\x10\x01\x2a\x10\x0a\x0cpost-restore\x10\x07").unwrap();
        assert_eq!(
            (answer.kind, answer.notification),
            (NOTIFY, ("post-restore".to_owned(), 7))
        );
        // VERSION 3.17.1.
        let answer = decode(b"\x08\x0a\x10\x01\x52\x06\x08\x03\x10\x11\x20\x01").unwrap();
        assert_eq!(answer.version, 31_701);
        // RESTORE, failure, restored pid -1.
        let answer = decode(b"\x08\x02\x10\x00\x22\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap();
        assert_eq!((answer.success, answer.restored), (false, -1));
        // DUMP, failure, errno 13 and a message.
        let answer = decode(b"\x08\x01\x10\x00\x38\x0d\x4a\x02no").unwrap();
        assert_eq!(
            (answer.success, answer.errno, answer.message.as_str()),
            (false, 13, "no")
        );
        // FEATURE_CHECK: tracks memory.
        let answer = decode(b"\x08\x09\x10\x01\x42\x04\x08\x01\x10\x00").unwrap();
        assert_eq!(answer.features, [true, false]);
        assert!(decode(b"\x22\x03\x08").is_none());
    }

    #[test]
    fn modes_have_names() {
        for (name, number) in [(None, 6), (Some("soft"), 3), (Some("ignore"), 0)] {
            assert_eq!(cgroups_mode(name).unwrap(), number);
        }
        assert!(cgroups_mode(Some("hard")).is_err());
    }
}
