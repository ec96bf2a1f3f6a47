//! The terminal of the person who typed the command.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios, Winsize};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The terminal without its line discipline: every key goes to the other end as it is. It is as before when this is
/// dropped.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// Standard input's terminal, if it is one.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may have gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The terminal's size, columns and rows; `None` without a terminal that knows its own.
pub fn size() -> Option<(u16, u16)> {
    let of = |size: Winsize| (size.ws_col, size.ws_row);
    let known = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin()));
    known
        .ok()
        .map(of)
        .filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// Resolves whenever the size may have changed.
pub(super) fn resized() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}

/// What would end this process at once, with its number, so that the terminal is put back first.
pub(super) struct Endings([(Signal, u8); 3]);

impl Endings {
    pub(super) fn listen() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds;
        let take = |kind: SignalKind| -> io::Result<(Signal, u8)> {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX);
            Ok((signal(kind)?, number))
        };
        Ok(Self([take(interrupt)?, take(terminate)?, take(hangup)?]))
    }

    /// The number of the first of them that comes.
    pub(super) async fn next(&mut self) -> u8 {
        let [(a, number_a), (b, number_b), (c, number_c)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => *number_a,
            _ = b.recv() => *number_b,
            _ = c.recv() => *number_c,
        }
    }
}
