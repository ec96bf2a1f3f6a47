//! A web server for examples and probes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Outcome;
use crate::args::Args;

/// The longest head of a request.
const MAX_HEAD: u64 = 64 << 10;
/// How long a client may take over its head.
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    directory: PathBuf,
    ready_file: Option<PathBuf>,
    sick_file: Option<PathBuf>,
    ready: AtomicBool,
    sick: AtomicBool,
    quiet: bool,
}

struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    location: Option<String>,
}

/// `httpd --port N [--dir D] [--ready-file F] [--sick-file F] [--quiet]`: serves the files of a directory, a line on
/// standard output per request, until SIGTERM.
///
/// - `/healthz`: 200, or 500 while the sick file is there or after `/sick/on`, until `/sick/off`;
/// - `/readyz`: 200, or 503 while the ready file is missing or after `/ready/off`, until `/ready/on`;
/// - `/status/CODE`, `/hostname`, `/env/NAME`, `/headers`, `/redirect/PATH`, `/slow/MS`, `/big/BYTES`;
/// - `/exit/CODE`: the server ends.
pub(crate) fn httpd(mut args: Args) -> Outcome {
    let port: u16 = args.option("--port")?.unwrap_or(8080);
    let server = Arc::new(Server {
        directory: args.option("--dir")?.unwrap_or_else(|| PathBuf::from(".")),
        ready_file: args.option("--ready-file")?,
        sick_file: args.option("--sick-file")?,
        ready: AtomicBool::new(true),
        sick: AtomicBool::new(false),
        quiet: args.switch("--quiet"),
    });
    if let Some(word) = args.rest().first() {
        return Err(format!("{word:?} is not an option of httpd").into());
    }
    crate::signals::end_on_termination(0)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("can't listen on port {port}: {error}"))?;
    println!("serving {} on port {port}", server.directory.display());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let server = Arc::clone(&server);
        std::thread::spawn(move || {
            if let Err(error) = server.serve(stream) {
                eprintln!("a client left: {error}");
            }
        });
    }
    Ok(0)
}

impl Server {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = Vec::new();
        let mut reader = BufReader::new((&stream).take(MAX_HEAD));
        while reader.read_until(b'\n', &mut head)? > 2 {}
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Ok(());
        };
        let answer = self.answer(method, target.split('?').next().unwrap_or(target), &head);
        if !self.quiet {
            println!("{method} {target} {}", answer.status);
        }
        let location = answer
            .location
            .map_or_else(String::new, |to| format!("Location: {to}\r\n"));
        write!(
            stream,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{location}Connection: close\r\n\r\n",
            answer.status,
            reason(answer.status),
            answer.kind,
            answer.body.len()
        )?;
        if method != "HEAD" {
            stream.write_all(&answer.body)?;
        }
        stream.flush()
    }

    fn answer(&self, method: &str, path: &str, head: &str) -> Answer {
        if !matches!(method, "GET" | "HEAD") {
            return Answer::text(405, "only GET and HEAD\n");
        }
        let target = path.trim_start_matches('/');
        let (verb, argument) = target.split_once('/').unwrap_or((target, ""));
        match verb {
            "healthz" if self.is_sick() => Answer::text(500, "sick\n"),
            "healthz" => Answer::text(200, "ok\n"),
            "readyz" if self.is_ready() => Answer::text(200, "ready\n"),
            "readyz" => Answer::text(503, "not ready\n"),
            "ready" => Answer::switched(&self.ready, "ready", argument),
            "sick" => Answer::switched(&self.sick, "sick", argument),
            "status" => Answer::text(argument.parse().unwrap_or(400), "as asked\n"),
            "headers" => Answer::text(200, head),
            "hostname" => Answer::text(
                200,
                &nix::unistd::gethostname().unwrap_or_default().to_string_lossy(),
            ),
            "env" => match std::env::var(argument) {
                Ok(value) => Answer::text(200, &value),
                Err(_) => Answer::text(404, "not set\n"),
            },
            "redirect" => Answer {
                location: Some(format!("/{argument}")),
                ..Answer::text(302, "over there\n")
            },
            "slow" => {
                std::thread::sleep(Duration::from_millis(argument.parse().unwrap_or(0)));
                Answer::text(200, "at last\n")
            }
            "big" => Answer::text(200, &"x".repeat(argument.parse().unwrap_or(0))),
            "exit" => {
                println!("asked to end with {argument}");
                std::process::exit(argument.parse().unwrap_or(0))
            }
            _ => self.file(path),
        }
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.ready_file.as_ref().is_none_or(|file| file.exists())
    }

    fn is_sick(&self) -> bool {
        self.sick.load(Ordering::Relaxed) || self.sick_file.as_ref().is_some_and(|file| file.exists())
    }

    /// A file of the directory, or of a directory's `index.html`; nothing above it.
    fn file(&self, path: &str) -> Answer {
        let relative = Path::new(path.trim_start_matches('/'));
        if relative
            .components()
            .any(|part| !matches!(part, Component::Normal(_)))
        {
            return Answer::text(400, "no\n");
        }
        let mut file = self.directory.join(relative);
        if file.is_dir() {
            file.push("index.html");
        }
        match std::fs::read(&file) {
            Ok(body) => Answer {
                status: 200,
                kind: media_type(&file),
                body,
                location: None,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Answer::text(404, "not found\n"),
            Err(error) => Answer::text(500, &format!("{error}\n")),
        }
    }
}

impl Answer {
    fn switched(switch: &AtomicBool, name: &str, to: &str) -> Self {
        if !matches!(to, "on" | "off") {
            return Self::text(404, "say on or off\n");
        }
        switch.store(to == "on", Ordering::Relaxed);
        Self::text(200, &format!("{name} is {to}\n"))
    }

    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.into(),
            location: None,
        }
    }
}

fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("css") => "text/css",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "As Asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let missing = Some(PathBuf::from("/no/such/file"));
        Server {
            directory: "/proc/self".into(),
            ready_file: missing.clone(),
            sick_file: missing,
            ready: AtomicBool::new(true),
            sick: AtomicBool::new(false),
            quiet: true,
        }
    }

    #[test]
    fn probes_can_be_switched() {
        let server = Server {
            ready_file: None,
            ..server()
        };
        let status = |path| server.answer("GET", path, "").status;
        assert_eq!((status("/readyz"), status("/healthz")), (200, 200));
        assert_eq!(
            (status("/ready/off"), status("/sick/on"), status("/sick/up")),
            (200, 200, 404)
        );
        assert_eq!((status("/readyz"), status("/healthz")), (503, 500));
        assert_eq!((status("/ready/on"), status("/sick/off")), (200, 200));
        assert_eq!((status("/readyz"), status("/healthz")), (200, 200));
    }

    #[test]
    fn paths_have_their_status() {
        let cases = [
            ("/healthz", 200),
            ("/readyz", 503),
            ("/status/418", 418),
            ("/status/x", 400),
            ("/comm", 200),
            ("/nothing", 404),
            ("/../self/comm", 400),
            ("//comm", 200),
            ("/env/NO_SUCH_VARIABLE", 404),
            ("", 404),
            ("/redirect/healthz", 302),
        ];
        for (path, status) in cases {
            assert_eq!(server().answer("GET", path, "").status, status, "{path}");
        }
        assert_eq!(server().answer("DELETE", "/comm", "").status, 405);
    }
}
