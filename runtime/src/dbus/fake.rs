//! A peer for tests: it accepts one connection after the other and answers calls as the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::address::Endpoint;
use super::message::{self, ERROR, FIXED, Incoming, METHOD_RETURN, SIGNAL};
use super::value::Value;
use super::wire::{Reader, Writer, length};

/// Something that is sent after a call.
pub(crate) enum Reply {
    Message {
        kind: u8,
        to: Option<u32>,
        member: &'static str,
        error: &'static str,
        /// The body's types, where they are not those of the values: an object path is written as a string.
        types: Option<&'static str>,
        body: Vec<Value>,
    },
    Raw(Vec<u8>),
    Close,
}

impl Reply {
    pub(crate) fn values(body: Vec<Value>) -> Reply {
        Reply::Message {
            kind: METHOD_RETURN,
            to: None,
            member: "",
            error: "",
            types: None,
            body,
        }
    }

    pub(crate) fn typed(types: &'static str, body: Vec<Value>) -> Reply {
        Reply::Message {
            kind: METHOD_RETURN,
            to: None,
            member: "",
            error: "",
            types: Some(types),
            body,
        }
    }

    pub(crate) fn text(text: &str) -> Reply {
        Reply::values(vec![Value::Text(text.to_owned())])
    }

    /// A reply to a call that nobody made.
    pub(crate) fn stray() -> Reply {
        Reply::Message {
            kind: METHOD_RETURN,
            to: Some(u32::MAX),
            member: "",
            error: "",
            types: None,
            body: Vec::new(),
        }
    }

    pub(crate) fn error(name: &'static str, text: &str) -> Reply {
        Reply::Message {
            kind: ERROR,
            to: None,
            member: "",
            error: name,
            types: None,
            body: vec![Value::Text(text.to_owned())],
        }
    }

    pub(crate) fn signal(member: &'static str, text: &str) -> Reply {
        Reply::signal_typed(member, "s", vec![Value::Text(text.to_owned())])
    }

    pub(crate) fn signal_typed(member: &'static str, types: &'static str, body: Vec<Value>) -> Reply {
        Reply::Message {
            kind: SIGNAL,
            to: None,
            member,
            error: "",
            types: Some(types),
            body,
        }
    }

    pub(crate) fn raw(bytes: Vec<u8>) -> Reply {
        Reply::Raw(bytes)
    }

    pub(crate) fn close() -> Reply {
        Reply::Close
    }
}

/// A listening peer; its socket goes with it.
pub(crate) struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    /// Answers every call with what `answer` says.
    pub(crate) fn start(mut answer: impl FnMut(&Incoming) -> Vec<Reply> + Send + 'static) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("bus")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &mut answer);
            }
        });
        Server { directory }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Path(self.directory.path().join("bus").to_str().unwrap().to_owned())
    }
}

fn serve(stream: UnixStream, answer: &mut dyn FnMut(&Incoming) -> Vec<Reply>) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut output = stream;
    for (said, reply) in [
        ("\0AUTH EXTERNAL\r\n", "DATA\r\n"),
        ("DATA\r\n", "OK 1234\r\n"),
        ("BEGIN\r\n", ""),
    ] {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        assert_eq!(line, said);
        output.write_all(reply.as_bytes()).unwrap();
    }
    while let Some((serial, call)) = receive(&mut input) {
        for reply in answer(&call) {
            let sent = match reply {
                Reply::Message {
                    kind,
                    to,
                    member,
                    error,
                    types,
                    body,
                } => output.write_all(&build(kind, to.unwrap_or(serial), [member, error], types, &body)),
                Reply::Raw(bytes) => output.write_all(&bytes),
                Reply::Close => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

fn receive(input: &mut impl Read) -> Option<(u32, Incoming)> {
    let mut fixed = [0; FIXED];
    input.read_exact(&mut fixed).ok()?;
    let mut bytes = fixed.to_vec();
    bytes.resize(FIXED + message::remaining(&fixed).unwrap(), 0);
    input.read_exact(&mut bytes[FIXED..]).ok()?;
    let mut reader = Reader::new(&fixed[8..], false);
    Some((reader.u32().unwrap(), Incoming::parse(&bytes).unwrap()))
}

fn build(kind: u8, to: u32, [member, error]: [&str; 2], types: Option<&str>, body: &[Value]) -> Vec<u8> {
    let mut content = Writer::default();
    body.iter().for_each(|value| value.write(&mut content));
    let mut writer = Writer::default();
    [b'l', kind, 0, 1].into_iter().for_each(|byte| writer.byte(byte));
    writer.u32(length(content.bytes.len()));
    writer.u32(1);
    writer.array(8, |fields| {
        let mut field = |code: u8, value: Value| {
            fields.align(8);
            fields.byte(code);
            value.write_variant(fields);
        };
        if kind != SIGNAL {
            field(5, Value::U32(to));
        }
        for (code, text) in [(3, member), (4, error)] {
            if !text.is_empty() {
                field(code, Value::Text(text.to_owned()));
            }
        }
        let own = || body.iter().map(Value::signature).collect::<String>();
        let signature = types.map_or_else(own, str::to_owned);
        fields.align(8);
        fields.byte(8);
        fields.signature("g");
        fields.signature(&signature);
    });
    writer.align(8);
    writer.bytes.extend(content.bytes);
    writer.bytes
}
