//! What a person sees: pods' events on standard error, containers' output under its name.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use super::bars::Bars;
use super::output::Output;
use crate::harmless;
use crate::logs::{LogLine, Stream};
use crate::worker::{EventReason, PodEvent};

/// Colours of containers' names, which repeat: cyan, magenta, blue, green, yellow and their bright ones.
const COLOURS: [u8; 10] = [36, 35, 34, 32, 33, 96, 95, 94, 92, 93];
const DIM: u8 = 2;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const ESCAPE: u8 = 0x1b;

/// Writes whole lines to standard output and standard error.
#[derive(Debug)]
pub(super) struct Printer {
    /// Containers are shown as `pod/container`.
    with_pod: bool,
    /// The width of the widest container name.
    width: usize,
    stdout_colour: bool,
    stderr_colour: bool,
    state: Mutex<State>,
    output: Output,
    /// How images come; `None` where that is not drawn.
    pub(super) bars: Option<Arc<Bars>>,
}

#[derive(Debug, Default)]
struct State {
    colours: HashMap<String, u8>,
    /// What was said last of a pod, so that it is not said again and again.
    last: HashMap<String, String>,
}

impl Printer {
    /// A printer for containers with these names, `(pod, container)`. Colours are used on a terminal, unless that is said to
    /// be a dumb one, or the environment has a `NO_COLOR` that is not empty.
    pub(super) fn new<'a>(containers: impl IntoIterator<Item = (&'a str, &'a str)>, with_pod: bool) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let width = containers
            .into_iter()
            .map(|(pod, name)| label(with_pod, pod, name).chars().count())
            .max();
        let bars = Bars::on_terminal();
        Printer {
            with_pod,
            width: width.unwrap_or(0),
            stdout_colour: allowed && io::stdout().is_terminal(),
            stderr_colour: allowed && io::stderr().is_terminal(),
            state: Mutex::default(),
            output: Output::start(bars.clone()),
            bars,
        }
    }

    /// A line of a container's output, to the stream that the container wrote it to; waits while that is not read.
    pub(super) async fn log(&self, pod: &str, container: &str, line: &LogLine) {
        let name = label(self.with_pod, pod, container);
        let prefix = format!("{name:<width$} |", width = self.width);
        let colour = self.colour_of(&name);
        let with_colour = match line.stream {
            Stream::Stdout => self.stdout_colour,
            Stream::Stderr => self.stderr_colour,
        };
        let mut text = printable(&line.text);
        if with_colour && text.contains(&ESCAPE) {
            // A colour that a program leaves on is not for the lines of others.
            text.extend_from_slice(b"\x1b[0m");
        }
        let bytes = joined(&painted(with_colour, colour, &prefix), &text);
        self.output.log(line.stream, bytes).await;
    }

    /// Returns when all is written, or when nobody reads it.
    pub(super) fn finish(&self) {
        self.output.finish();
    }

    /// Something that happened to a pod. What was said last is not said again.
    pub(super) fn event(&self, pod: &str, event: &PodEvent) {
        let Some((colour, text)) = sentence(event) else {
            return;
        };
        let key = format!(
            "{pod}/{}/{:?}",
            event.container.as_deref().unwrap_or_default(),
            event.reason
        );
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if event.reason == EventReason::Ready {
                // From now on a probe's failure is news again.
                let container = format!("{pod}/{}/", event.container.as_deref().unwrap_or_default());
                state.last.retain(|key, _| !key.starts_with(&container));
            }
            let repeats = matches!(event.reason, EventReason::Unhealthy | EventReason::ProbeWarning);
            if repeats && state.last.get(&key) == Some(&text) {
                return;
            }
            state.last.insert(key, text.clone());
        }
        self.say(colour, &format!("{pod}: {text}"));
    }

    /// Something else to say of a pod or of the whole.
    pub(super) fn note(&self, text: &str) {
        self.say(None, text);
    }

    fn say(&self, colour: Option<u8>, text: &str) {
        // It may have words of a registry or of a container in it.
        let text = harmless::lines(text);
        let text = match colour {
            Some(colour) => painted(self.stderr_colour, colour, &text),
            None => text,
        };
        self.output.say(format!("{text}\n").into_bytes());
    }

    fn colour_of(&self, name: &str) -> u8 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = COLOURS[state.colours.len() % COLOURS.len()];
        *state.colours.entry(name.to_owned()).or_insert(next)
    }
}

fn label(with_pod: bool, pod: &str, container: &str) -> String {
    if with_pod {
        format!("{pod}/{container}")
    } else {
        container.to_owned()
    }
}

fn painted(enabled: bool, colour: u8, text: &str) -> String {
    if enabled {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn joined(prefix: &str, text: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(prefix.len() + text.len() + 2);
    line.extend_from_slice(prefix.as_bytes());
    line.push(b' ');
    line.extend_from_slice(text);
    line.push(b'\n');
    line
}

/// A program that draws over its own line has only its last drawing shown.
fn printable(text: &[u8]) -> Vec<u8> {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match text.iter().rposition(|&byte| byte == b'\r') {
        Some(at) => text[at + 1..].to_vec(),
        None => text.to_vec(),
    }
}

/// How an event is said, and in which colour; `None` for what nobody needs to see.
fn sentence(event: &PodEvent) -> Option<(Option<u8>, String)> {
    let message = event.message.as_str();
    let name = event.container.as_deref().unwrap_or("pod");
    let of = |text: &str| format!("{name} {text}");
    let about = || match &event.container {
        Some(name) => format!("{name}: {message}"),
        None => message.to_owned(),
    };
    Some(match event.reason {
        EventReason::Created => return None,
        EventReason::Phase if !message.contains("Succeeded") && !message.contains("Failed") => return None,
        EventReason::Phase => (None, lower(message)),
        EventReason::Pulling | EventReason::Pulled | EventReason::SandboxReady => (Some(DIM), lower(message)),
        EventReason::Started => (None, of("started")),
        EventReason::Adopted => (None, of("is running and was taken over")),
        EventReason::Ready => (Some(GREEN), of("is ready")),
        EventReason::NotReady => (Some(YELLOW), of("is not ready")),
        EventReason::Exited => {
            let good = message.ends_with("code 0");
            let text = message.strip_prefix("Container ").unwrap_or(message);
            (if good { None } else { Some(YELLOW) }, text.to_owned())
        }
        EventReason::Killing
        | EventReason::ResizeStarted
        | EventReason::ResizeCompleted
        | EventReason::Resized => (None, lower(message)),
        EventReason::ResizeDeferred => (Some(YELLOW), lower(message)),
        EventReason::SandboxChanged | EventReason::SchedulingGated => (Some(YELLOW), lower(message)),
        EventReason::Failed
        | EventReason::Rejected(_)
        | EventReason::FailedCreatePodSandBox
        | EventReason::FailedMount
        | EventReason::FailedSync
        | EventReason::Evicted
        | EventReason::Preempting
        | EventReason::DeadlineExceeded
        | EventReason::ResizeError
        | EventReason::ResizeInfeasible
        | EventReason::FailedPostStartHook
        | EventReason::FailedPreStopHook => (Some(RED), about()),
        EventReason::BackOff
        | EventReason::Unhealthy
        | EventReason::ProbeWarning
        | EventReason::LifecycleHTTPFallback => (Some(YELLOW), about()),
    })
}

/// Begins with a small letter, as the rest of a line after `pod: ` does.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PodUid;

    #[test]
    fn events_read_as_sentences() {
        let say = |reason, container: Option<&str>, message: &str| {
            let container = container.map(str::to_owned);
            let event = PodEvent {
                uid: PodUid("u".into()),
                time: 0,
                reason,
                container,
                message: message.into(),
            };
            sentence(&event).map(|(_, text)| text)
        };
        assert_eq!(say(EventReason::Created, Some("web"), "x"), None);
        assert_eq!(
            say(EventReason::Started, Some("web"), "x").as_deref(),
            Some("web started")
        );
        assert_eq!(
            say(EventReason::Ready, None, "x").as_deref(),
            Some("pod is ready")
        );
        assert_eq!(
            say(
                EventReason::Exited,
                Some("web"),
                "Container web ended with exit code 3"
            )
            .as_deref(),
            Some("web ended with exit code 3")
        );
        assert_eq!(
            say(EventReason::BackOff, Some("web"), "back-off 10s").as_deref(),
            Some("web: back-off 10s")
        );
        assert_eq!(say(EventReason::Phase, None, "Pod is Running"), None);
    }

    #[test]
    fn redrawn_lines_show_the_last_drawing() {
        assert_eq!(printable(b"10%\r20%\r30%"), b"30%");
        assert_eq!(printable(b"dos\r"), b"dos");
        assert_eq!(printable(b"plain"), b"plain");
    }
}
