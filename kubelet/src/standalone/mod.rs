//! Pods without an API server: `berth run` and the commands that look after what it left.

mod facts;
mod inspect;
mod lock;
mod output;
mod printer;
mod run;
mod session;
mod show;
mod signals;

pub use inspect::{InspectError, Places};
pub use lock::LockError;
pub use run::{Ended, Host, RunError, Workload, run, stop};
pub use show::{Format, show};
