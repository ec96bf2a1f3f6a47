//! A program that runs, what it printed so far, and how it ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait::PATIENCE;

type Output = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A program that was started.
pub struct Running {
    child: Child,
    what: String,
    output: Output,
    readers: Vec<JoinHandle<()>>,
}

/// What was printed so far. A test that fails holds it: it is whole nevertheless, and what ends the program reads it again.
fn printed(output: &Output) -> MutexGuard<'_, Vec<String>> {
    output.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output and standard error, line by line as they came.
    pub output: String,
}

impl Ended {
    /// The exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// # Panics
    /// Unless the program ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "ended with {}; it printed:\n{}",
            self.status,
            self.output
        );
        self
    }

    /// # Panics
    /// Unless the output has each of these.
    #[track_caller]
    pub fn expect_output(self, needles: &[&str]) -> Self {
        for needle in needles {
            assert!(
                self.output.contains(needle),
                "{needle:?} is not in the output:\n{}",
                self.output
            );
        }
        self.expect_no_panic()
    }

    /// # Panics
    /// Unless a container logged this.
    #[track_caller]
    pub fn expect_log(self, container: &str, text: &str) -> Self {
        let found = self.output.lines().any(|line| is_log(line, container, text));
        assert!(found, "{container:?} did not log {text:?}:\n{}", self.output);
        self
    }

    /// # Panics
    /// If the program did.
    #[track_caller]
    pub fn expect_no_panic(self) -> Self {
        assert!(
            !self.output.contains("panicked at"),
            "it panicked:\n{}",
            self.output
        );
        self
    }
}

impl Running {
    /// Starts it with this standard input.
    pub fn start(mut command: Command, input: &str) -> Self {
        let what = format!("{command:?}");
        command.stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .expect("the program reads its standard input");
        }
        let output = Output::default();
        let stdout = child.stdout.take().expect("it was piped");
        let stderr = child.stderr.take().expect("it was piped");
        let readers = vec![
            collect(stdout, Arc::clone(&output)),
            collect(stderr, Arc::clone(&output)),
        ];
        Self {
            child,
            what,
            output,
            readers,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        printed(&self.output).join("\n")
    }

    /// Waits for a line with `needle`, in whatever case, after the first `skip` lines, and returns its number and text.
    ///
    /// # Panics
    /// If it does not come in time.
    #[track_caller]
    pub fn line_after(&self, skip: usize, needle: &str) -> (usize, String) {
        self.find(skip, &format!("a line with {needle:?}"), |line| {
            line.contains(needle)
        })
    }

    /// Waits for a line with `needle`.
    ///
    /// # Panics
    /// If it does not come in time.
    #[track_caller]
    pub fn line(&self, needle: &str) -> String {
        self.line_after(0, needle).1
    }

    /// Waits for a line of a container's log: `container | text`.
    ///
    /// # Panics
    /// If it does not come in time.
    #[track_caller]
    pub fn log(&self, container: &str, text: &str) -> String {
        self.log_after(0, container, text)
    }

    /// Waits for a line of a container's log after the first `skip` lines.
    ///
    /// # Panics
    /// If it does not come in time.
    #[track_caller]
    pub fn log_after(&self, skip: usize, container: &str, text: &str) -> String {
        self.find(skip, &format!("{container:?} logging {text:?}"), |line| {
            is_log(line, container, text)
        })
        .1
    }

    /// Waits until berth says which address the pod has.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn address(&self) -> IpAddr {
        let line = self
            .find(0, "the pod's address", |line| address_in(line).is_some())
            .1;
        address_in(&line).expect("it was found")
    }

    /// How many lines it printed so far: a mark for [`Running::line_after`].
    pub fn mark(&self) -> usize {
        printed(&self.output).len()
    }

    /// Waits for a line that matches, after the first `skip`.
    ///
    /// # Panics
    /// If it does not come in time.
    #[track_caller]
    pub fn find(&self, skip: usize, what: &str, matches: impl Fn(&str) -> bool) -> (usize, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = printed(&self.output);
        let mut next = skip;
        loop {
            while let Some(line) = lines.get(next) {
                if matches(line) {
                    return (next, line.clone());
                }
                next += 1;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            let ended = self.readers.iter().all(JoinHandle::is_finished);
            assert!(
                !rest.is_zero() && !ended,
                "{}\ndid not print {what}:\n{}",
                self.what,
                lines.join("\n")
            );
            let waited = self
                .output
                .1
                .wait_timeout(lines, rest.min(Duration::from_millis(200)));
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid()), signal)
            .unwrap_or_else(|error| panic!("{}: {error}", self.what));
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::SIGINT);
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end; so far it printed:\n{}",
                self.what,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        // What it left running may keep its output open: that is a leak to report, not a reason to hang.
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ended {
            status,
            output: self.output(),
        }
    }

    /// Kills it without a warning, as the OOM killer would.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\nprinted so far:\n{}", self.what, self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a line is one of this container's log that has the text.
pub(crate) fn is_log(line: &str, container: &str, text: &str) -> bool {
    line.split_once('|').is_some_and(|(prefix, rest)| {
        prefix.trim().split(['/', ' ']).next_back() == Some(container) && rest.contains(text)
    })
}

/// The first IP address in a line that is not a container's.
fn address_in(line: &str) -> Option<IpAddr> {
    if line.contains('|') {
        return None;
    }
    line.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
        .filter(|word| word.contains('.'))
        .find_map(|word| word.trim_matches(['.', ':']).parse().ok())
}

fn collect(stream: impl Read + Send + 'static, output: Output) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            printed(&output).push(text);
            output.1.notify_all();
            line.clear();
        }
        output.1.notify_all();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_berth_says() {
        let address = |line: &str| address_in(line).map(|address| address.to_string());
        assert_eq!(address("hello: IP 10.88.0.2").as_deref(), Some("10.88.0.2"));
        assert_eq!(
            address("sandbox ready, ip=10.88.0.3, 12 ms").as_deref(),
            Some("10.88.0.3")
        );
        assert_eq!(address("version 1.2 of it, in 0.3 s."), None);
        assert_eq!(address("web | 10.0.0.1 connected"), None);
    }

    #[test]
    fn logs_have_a_prefix() {
        assert!(is_log("web | serving", "web", "serving"));
        assert!(is_log("hello/web    | serving", "web", "serv"));
        assert!(!is_log("webby | serving", "web", "serving"));
        assert!(!is_log("web started", "web", "started"));
    }
}
