//! Pods without an API server: `berth run` and the commands that look after what it left.

mod choose;
mod duration;
mod facts;
mod inspect;
mod lock;
mod logs;
mod output;
mod printer;
mod run;
mod session;
mod show;
mod signals;
mod watch;

pub use choose::Chosen;
pub use duration::{parse_duration, short_age};
pub use inspect::{InspectError, Places};
pub use lock::LockError;
pub use logs::{LogOptions, PodLogLine};
pub use run::{Ended, Host, RunError, Workload, run, stop};
pub use show::{Format, show};
