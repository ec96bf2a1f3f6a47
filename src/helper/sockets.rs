//! Plain TCP and UDP, both sides.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::Outcome;
use crate::args::Args;

/// How long the client waits for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `listen tcp|udp PORT`: sends back what comes in, until SIGTERM.
pub(crate) fn listen(mut args: Args) -> Outcome {
    let protocol: String = args.word("PROTOCOL")?;
    let port: u16 = args.word("PORT")?;
    crate::signals::end_on_termination(0)?;
    match protocol.as_str() {
        "tcp" => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
            println!("listening on tcp {port}");
            for stream in listener.incoming() {
                let stream = stream?;
                std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        }
        "udp" => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            println!("listening on udp {port}");
            let mut buffer = [0; 65536];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer)?;
                socket.send_to(&buffer[..length], peer)?;
            }
        }
        _ => return Err(format!("{protocol:?} is not tcp or udp").into()),
    }
    Ok(0)
}

/// `connect tcp|udp IP:PORT [TEXT…]`: sends the text and prints what comes back.
pub(crate) fn connect(mut args: Args) -> Outcome {
    let protocol: String = args.word("PROTOCOL")?;
    let address: SocketAddr = args.word("IP:PORT")?;
    let text = args.rest().join(" ");
    let mut answer = Vec::new();
    if protocol == "tcp" {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(text.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut answer)?;
    } else {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(text.as_bytes(), address)?;
        answer.resize(65536, 0);
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
    }
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(0)
}
