//! A person at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::unistd::ttyname;

use crate::wait::eventually;

/// A program whose standard streams are a terminal, which it has for itself as it would have a window.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Keeps the terminal there, and its name.
    slave: File,
    seen: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a command in a window of that size.
    ///
    /// # Panics
    /// If there is no terminal to be had, or the program is not there.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).expect("a terminal");
        // A daemon that the program starts must not keep it.
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a terminal");
        }
        let slave = File::from(pty.slave);
        let stream = || Stdio::from(slave.try_clone().expect("the terminal again"));
        // In a session of its own, so that Ctrl-C and changes of the size reach it.
        let mut own = Command::new("setsid");
        own.arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => own.env(name, value),
                None => own.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            own.current_dir(directory);
        }
        let child = own
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("setsid of util-linux");
        let seen = Arc::new(Mutex::new(String::new()));
        let mut screen = File::from(pty.master.try_clone().expect("the terminal's other side"));
        let shown = Arc::clone(&seen);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails when nobody has the terminal any more.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                shown.lock().expect("the screen").push_str(&text);
            }
        });
        Self {
            child,
            keyboard: File::from(pty.master),
            slave,
            seen,
            reader,
        }
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal has gone.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Everything that was on the screen until now.
    ///
    /// # Panics
    /// If the thread that reads it has.
    pub fn seen(&self) -> String {
        self.seen.lock().expect("the screen").clone()
    }

    /// Waits until this was on the screen.
    ///
    /// # Panics
    /// If it does not come.
    pub fn shows(&self, text: &str) {
        let _told = ToldWhenItFails(self);
        eventually(&format!("the screen shows {text:?}"), || {
            self.seen().contains(text).then_some(())
        });
    }

    /// Gives the window another size.
    ///
    /// # Panics
    /// If stty(1) can't.
    pub fn resize(&self, columns: u16, rows: u16) {
        let name = ttyname(&self.slave).expect("the terminal's name");
        let status = Command::new("stty")
            .arg("-F")
            .arg(name)
            .args(["cols", &columns.to_string(), "rows", &rows.to_string()])
            .status();
        assert!(status.expect("stty").success());
    }

    /// Waits for the program's end; returns its exit code, and everything that was on the screen.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = eventually("it ends", || self.child.try_wait().expect("a child"));
        drop((self.slave, self.keyboard));
        self.reader.join().expect("the screen");
        let seen = self.seen.lock().expect("the screen").clone();
        (status.code(), seen)
    }
}

/// Prints what was on the screen if the test ends here.
struct ToldWhenItFails<'a>(&'a Terminal);

impl Drop for ToldWhenItFails<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on the screen: {:?}", self.0.seen());
        }
    }
}
