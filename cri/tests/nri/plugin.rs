//! A plugin of the tests' own: it remembers what it is told, and answers as the test wants.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_cri::nri::api;
use berth_cri::nri::frame::{Channel, Decoder, Kind, Message, encode};
use prost::Message as _;

use super::bench::PATIENCE;

/// ttrpc's `Request`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

/// ttrpc's `Response`.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

const UNIMPLEMENTED: i32 = 12;

/// What a plugin says to a call.
pub(crate) enum Answer {
    /// Yes, with a reply.
    Reply(Vec<u8>),
    /// No, and why.
    Refuse(&'static str),
    /// It does not know the method.
    Unknown,
    /// Nothing, ever.
    Silence,
    /// Bytes that are no frame.
    Garbage,
    /// It ends.
    Leave,
}

impl Answer {
    pub(crate) fn empty() -> Self {
        Self::Reply(Vec::new())
    }

    pub(crate) fn of(message: &impl prost::Message) -> Self {
        Self::Reply(message.encode_to_vec())
    }
}

type Handler = Box<dyn FnMut(&str, &[u8]) -> Answer + Send>;

/// How a plugin is.
pub(crate) struct PluginConfig {
    pub(crate) index: &'static str,
    pub(crate) name: &'static str,
    /// Zero is all events.
    pub(crate) events: i32,
    /// Of `Configure` it only hears.
    pub(crate) handler: Handler,
}

impl PluginConfig {
    /// A plugin that says yes to everything.
    pub(crate) fn new(index: &'static str, name: &'static str) -> Self {
        Self::answering(index, name, |_, _| Answer::empty())
    }

    pub(crate) fn answering(
        index: &'static str,
        name: &'static str,
        handler: impl FnMut(&str, &[u8]) -> Answer + Send + 'static,
    ) -> Self {
        Self {
            index,
            name,
            events: 0,
            handler: Box::new(handler),
        }
    }

    /// A plugin that wants the first of these of the first container that is made, and so on.
    pub(crate) fn adjusting_each(
        index: &'static str,
        name: &'static str,
        wanted: Vec<api::ContainerAdjustment>,
    ) -> Self {
        let mut wanted = wanted.into_iter();
        Self::answering(index, name, move |method, _| match method {
            "CreateContainer" => Answer::of(&api::CreateContainerResponse {
                adjust: wanted.next(),
                ..Default::default()
            }),
            _ => Answer::empty(),
        })
    }

    /// A plugin that wants this of each container that is made.
    pub(crate) fn adjusting(
        index: &'static str,
        name: &'static str,
        adjust: api::ContainerAdjustment,
    ) -> Self {
        Self::answering(index, name, move |method, _| match method {
            "CreateContainer" => Answer::of(&api::CreateContainerResponse {
                adjust: Some(adjust.clone()),
                ..Default::default()
            }),
            _ => Answer::empty(),
        })
    }
}

/// Something that several threads add to.
type Shared<T> = Arc<Mutex<Vec<T>>>;
/// The runtime's answer to a plugin's call.
type Answered = Result<Vec<u8>, String>;

/// What a plugin was told, in order.
#[derive(Clone)]
pub(crate) struct Calls {
    log: Shared<(String, Vec<u8>)>,
    /// Answers of the runtime to the plugin.
    answers: Shared<Answered>,
    socket: Arc<UnixStream>,
    /// Held while a message is written: several threads do.
    writing: Arc<Mutex<()>>,
    /// Answers to the runtime, as bytes, that whoever writes next writes too.
    replies: Arc<Mutex<Vec<u8>>>,
}

impl Calls {
    pub(crate) fn all(&self) -> Vec<(String, Vec<u8>)> {
        self.log.lock().unwrap().clone()
    }

    /// The methods that were called, without those of the registration.
    pub(crate) fn methods(&self) -> Vec<String> {
        let calls = self.all().into_iter().map(|(method, _)| method);
        calls
            .filter(|method| method != "Configure" && method != "Synchronize")
            .collect()
    }

    /// What came with the calls of a method.
    pub(crate) fn of<T: prost::Message + Default>(&self, method: &str) -> Vec<T> {
        let calls = self.all().into_iter().filter(|(called, _)| called == method);
        calls
            .map(|(_, payload)| T::decode(payload.as_slice()).unwrap())
            .collect()
    }

    /// Waits until a method was called that often.
    pub(crate) async fn until(&self, method: &str, count: usize) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.all().iter().filter(|(called, _)| called == method).count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "{method} was not called {count} times: {:?}",
            self.methods()
        );
    }

    /// Sends a message; false once the socket is closed. That may be what a test is about.
    pub(crate) fn send(&self, message: &Message) -> bool {
        let bytes = encode(message).unwrap();
        let writing = self.writing.lock().unwrap();
        let sent = (&*self.socket).write_all(&bytes).is_ok();
        drop(writing);
        self.write_replies();
        sent
    }

    /// Answers the runtime, and waits for nobody: whoever reads the socket has to go on, or both sides wait for the other to read.
    fn reply(&self, message: &Message) {
        self.replies.lock().unwrap().extend(encode(message).unwrap());
        let writer = self.clone();
        std::thread::spawn(move || writer.write_replies());
    }

    /// Writes the answers that wait, unless another thread is writing: that does it then.
    fn write_replies(&self) {
        while !self.replies.lock().unwrap().is_empty() {
            let Ok(_writing) = self.writing.try_lock() else {
                return;
            };
            let bytes = std::mem::take(&mut *self.replies.lock().unwrap());
            // A closed socket is found by who reads it.
            let _ = (&*self.socket).write_all(&bytes);
        }
    }

    /// How many calls of the plugin were answered.
    pub(crate) fn answered(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Waits until the runtime has closed the plugin, in a process that is nothing else.
    pub(crate) fn wait_closed(&self) {
        while !self.all().iter().any(|(method, _)| method == "(closed)") {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the plugin.
    pub(crate) fn leave(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Whether the runtime has closed the plugin, which it may be about to.
    pub(crate) async fn until_closed(&self) {
        self.until("(closed)", 1).await;
    }

    /// Calls the runtime, on a stream that no call before had.
    pub(crate) async fn call(&self, method: &str, payload: &[u8], stream: u32) -> Answered {
        let before = self.answers.lock().unwrap().len();
        self.send(&request(method, payload, stream));
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.answers.lock().unwrap().len() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{method} was not answered");
        self.answers.lock().unwrap()[before].clone()
    }
}

pub(crate) struct Plugin {
    calls: Calls,
}

impl Plugin {
    pub(crate) fn connect(path: &Path, config: PluginConfig) -> Self {
        Self::on(UnixStream::connect(path).unwrap(), config)
    }

    pub(crate) fn on(socket: UnixStream, config: PluginConfig) -> Self {
        let calls = Calls {
            log: Arc::default(),
            answers: Arc::default(),
            socket: Arc::new(socket),
            writing: Arc::default(),
            replies: Arc::default(),
        };
        let registration = api::RegisterPluginRequest {
            plugin_name: config.name.to_owned(),
            plugin_idx: config.index.to_owned(),
            nri_version: String::new(),
        };
        calls.send(&request("RegisterPlugin", &registration.encode_to_vec(), 1));
        let plugin = calls.clone();
        std::thread::spawn(move || serve(&plugin, config));
        Self { calls }
    }

    pub(crate) fn calls(&self) -> Calls {
        self.calls.clone()
    }
}

pub(crate) fn request(method: &str, payload: &[u8], stream: u32) -> Message {
    let request = Request {
        service: "nri.pkg.api.v1alpha1.Runtime".to_owned(),
        method: method.to_owned(),
        payload: payload.to_vec(),
        timeout_nano: 0,
    };
    Message {
        channel: Channel::Runtime,
        stream,
        kind: Kind::Request,
        body: request.encode_to_vec(),
    }
}

fn serve(calls: &Calls, mut config: PluginConfig) {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; 1 << 16];
    loop {
        let read = match (&*calls.socket).read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        for message in decoder.feed(&bytes[..read]).unwrap() {
            match message.kind {
                Kind::Request => {
                    if !handle(calls, &mut config, &message) {
                        calls.leave();
                        return;
                    }
                }
                Kind::Response => {
                    let response = Response::decode(message.body.as_slice()).unwrap();
                    let answer = match response.status {
                        Some(status) if status.code != 0 => Err(status.message),
                        _ => Ok(response.payload),
                    };
                    // The first is the registration's.
                    if message.stream > 1 {
                        calls.answers.lock().unwrap().push(answer);
                    }
                }
            }
        }
    }
    calls
        .log
        .lock()
        .unwrap()
        .push(("(closed)".to_owned(), Vec::new()));
}

fn handle(calls: &Calls, config: &mut PluginConfig, message: &Message) -> bool {
    let request = Request::decode(message.body.as_slice()).unwrap();
    assert_eq!(request.service, "nri.pkg.api.v1alpha1.Plugin");
    let answer = if request.method == "Configure" {
        (config.handler)(&request.method, &request.payload);
        Answer::of(&api::ConfigureResponse {
            events: config.events,
        })
    } else {
        (config.handler)(&request.method, &request.payload)
    };
    calls.log.lock().unwrap().push((request.method, request.payload));
    let (status, payload) = match answer {
        Answer::Reply(payload) => (None, payload),
        Answer::Refuse(why) => (Some((2, why)), Vec::new()),
        Answer::Unknown => (Some((UNIMPLEMENTED, "unknown")), Vec::new()),
        Answer::Silence => return true,
        Answer::Garbage => {
            let _ = (&*calls.socket).write_all(&[0xff; 64]);
            return true;
        }
        Answer::Leave => return false,
    };
    let status = status.map(|(code, message)| Status {
        code,
        message: message.to_owned(),
    });
    let reply = Message {
        kind: Kind::Response,
        body: Response { status, payload }.encode_to_vec(),
        ..message.clone()
    };
    calls.reply(&reply);
    true
}
