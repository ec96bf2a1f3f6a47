//! A server of `grpc.health.v1.Health`, with just as much of HTTP/2 (RFC 9113) as one call on a connection takes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use crate::Outcome;
use crate::args::Args;

/// What a client's connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest frame that is taken; nobody may send a longer one unasked.
const MAX_FRAME: usize = 16384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Flag of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Flag of SETTINGS and PING.
const ACK: u8 = 1;
/// Flag of HEADERS.
const END_HEADERS: u8 = 4;

struct Server {
    service: String,
    sick_file: Option<PathBuf>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// `grpc-health --port N [--service S] [--sick-file F]`: says SERVING of the server and of the service, NOT_SERVING
/// while the file is there, and knows no other service. A line on standard output per check, until SIGTERM.
pub(crate) fn grpc_health(mut args: Args) -> Outcome {
    let port: u16 = args.option("--port")?.unwrap_or(50051);
    let server = Arc::new(Server {
        service: args.option("--service")?.unwrap_or_default(),
        sick_file: args.option("--sick-file")?,
    });
    crate::signals::end_on_termination(0)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("can't listen on port {port}: {error}"))?;
    println!("serving health on port {port}");
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
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface)?;
        if preface != PREFACE {
            return Err(io::Error::other("it does not speak HTTP/2"));
        }
        write_frame(&mut stream, SETTINGS, 0, 0, &[])?;
        let mut body = Vec::new();
        while let Some(frame) = read_frame(&mut stream)? {
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => write_frame(&mut stream, SETTINGS, ACK, 0, &[])?,
                PING if frame.flags & ACK == 0 => write_frame(&mut stream, PING, ACK, 0, &frame.payload)?,
                GOAWAY => return Ok(()),
                DATA | HEADERS => {
                    if frame.kind == DATA {
                        body.extend(frame.payload);
                    }
                    if frame.flags & END_STREAM != 0 {
                        self.answer(&mut stream, frame.stream, &body)?;
                        body.clear();
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn answer(&self, stream: &mut TcpStream, id: u32, body: &[u8]) -> io::Result<()> {
        // Five bytes of gRPC's framing, then the tag and the length of the field.
        let service = String::from_utf8_lossy(body.get(7..).unwrap_or_default()).into_owned();
        let sick = self.sick_file.as_ref().is_some_and(|file| file.exists());
        let known = service.is_empty() || service == self.service;
        println!("Check {service:?} known={known} sick={sick}");
        // Index 8 of HPACK's static table is `:status: 200`.
        let mut head = vec![0x88];
        literal("content-type", "application/grpc", &mut head);
        if !known {
            literal("grpc-status", "5", &mut head);
            literal("grpc-message", "unknown service", &mut head);
            return write_frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &head);
        }
        write_frame(stream, HEADERS, END_HEADERS, id, &head)?;
        let status = if sick { 2 } else { 1 };
        write_frame(stream, DATA, 0, id, &[0, 0, 0, 0, 2, 8, status])?;
        let mut trailers = Vec::new();
        literal("grpc-status", "0", &mut trailers);
        write_frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &trailers)
    }
}

/// A header in HPACK's plainest form (RFC 7541, section 6.2.2): a new name, not kept, no Huffman code.
fn literal(name: &str, value: &str, to: &mut Vec<u8>) {
    to.push(0);
    for text in [name, value] {
        to.push(u8::try_from(text.len()).unwrap_or(0));
        to.extend_from_slice(text.as_bytes());
    }
}

fn write_frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Option<Frame>> {
    let mut head = [0; 9];
    if stream.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..])?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if length > MAX_FRAME {
        return Err(io::Error::other("a frame is too long"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        payload,
    }))
}
