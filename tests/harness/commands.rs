//! Commands of berth that run to their end.

use std::process::Command;

use crate::node::Node;
use crate::ordinary_user::OrdinaryUser;
use crate::running::{Ended, Running};

/// Whoever gives commands.
pub trait Commander {
    /// `berth SUBCOMMAND …` with the commander's places.
    fn command(&self, arguments: &[&str]) -> Command;
}

impl Commander for Node {
    fn command(&self, arguments: &[&str]) -> Command {
        self.berth(arguments)
    }
}

impl Commander for OrdinaryUser<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        self.berth(arguments)
    }
}

/// Gives a command and waits for its end.
///
/// # Panics
/// If it does not end, or panics.
#[track_caller]
pub fn berth(commander: &impl Commander, arguments: &[&str]) -> Ended {
    Running::start(commander.command(arguments), "")
        .wait()
        .expect_no_panic()
}
