//! The smallest HTTP client: what a probe or a test needs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::args::Args;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait between attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// `http-get URL [--within SECONDS] [--status]`: prints the body (with `--status` the status code first); ends with 1
/// unless the status is 2xx. With `--within` it is tried again until that time is over.
pub(crate) fn http_get(mut args: Args) -> Outcome {
    let within: f64 = args.option("--within")?.unwrap_or(0.0);
    let show_status = args.switch("--status");
    let url: String = args.word("URL")?;
    let deadline = Instant::now() + Duration::try_from_secs_f64(within)?;
    loop {
        let result = get(&url);
        if !matches!(result, Ok((200..=299, _))) && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            continue;
        }
        let (status, body) = result?;
        if show_status {
            println!("{status}");
        }
        std::io::stdout().write_all(&body)?;
        return Ok(u8::from(!(200..=299).contains(&status)));
    }
}

/// Status and body of `http://IP[:PORT]/PATH`.
fn get(url: &str) -> Result<(u16, Vec<u8>), Box<dyn std::error::Error>> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("only http:// URLs are understood")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = address(host)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let path = if path.is_empty() { "/" } else { path };
    // In one piece: a server that answers the first bytes and goes would reset the connection under the others.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or("the answer has no status")?;
    Ok((status, answer.split_off(end + 4)))
}

/// No names but `localhost`: a resolver would double the size of the program.
fn address(host: &str) -> Result<SocketAddr, String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "80"),
    };
    let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
    if name == "localhost" {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let address = name.trim_matches(['[', ']']).parse();
    address
        .map(|address| SocketAddr::new(address, port))
        .map_err(|_| format!("{name:?} is not an IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_with_or_without_port() {
        let cases = [
            ("10.0.0.1", "10.0.0.1:80"),
            ("10.0.0.1:8080", "10.0.0.1:8080"),
            ("localhost:81", "127.0.0.1:81"),
            ("[::1]:82", "[::1]:82"),
            ("[::1]", "[::1]:80"),
        ];
        for (host, expected) in cases {
            assert_eq!(address(host).unwrap().to_string(), expected);
        }
        assert!(address("example.org").is_err());
    }
}
