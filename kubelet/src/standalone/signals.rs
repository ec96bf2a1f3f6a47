//! Ctrl-C, once and twice.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::printer::Printer;
use super::session::Patience;

/// Takes SIGINT, SIGTERM and SIGHUP from now on: the first one asks for a stop, the second kills.
pub(super) fn listen(printer: Arc<Printer>) -> io::Result<watch::Receiver<Patience>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(Patience::Run);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => {}
                Some(()) = terminate.recv() => {}
                Some(()) = hangup.recv() => {}
                () = sender.closed() => return,
            }
            let next = match *sender.borrow() {
                Patience::Run => Patience::Stop,
                Patience::Stop | Patience::Kill => Patience::Kill,
            };
            match next {
                Patience::Stop => printer.note("Stopping; once more kills at once."),
                _ => printer.note("Killing."),
            }
            sender.send_replace(next);
        }
    });
    Ok(receiver)
}
