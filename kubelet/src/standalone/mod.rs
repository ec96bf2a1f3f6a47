//! Pods without an API server: `berth run` and the commands that look after what it left.

mod apply;
mod bars;
mod begun;
mod choose;
mod control;
mod copy;
mod daemon;
mod debug;
mod detached;
mod difference;
mod events;
mod facts;
mod file_user;
mod forward;
mod inspect;
mod journal;
mod jsonpath;
mod listing;
mod lock;
mod logs;
mod objects;
mod output;
mod own_group;
mod pod_word;
mod printer;
mod processes;
mod run;
mod selector;
mod session;
mod show;
mod signals;
mod streams;
mod take_up;
mod terminal;
mod usage_table;
mod view;
mod wait;

pub use crate::duration::{parse_duration, short_age};
pub use apply::Applied;
pub use bars::Bars;
pub use choose::Chosen;
pub use control::{
    CallError, Caller, ContainerSummary, ContainerUsage, Forwarder, PodUsage, RootOf, Streams, TakeOver,
    Taken,
};
pub use copy::{CopyError, Side, copy};
pub use daemon::{DaemonError, daemon};
pub use debug::{DebugContainer, DebugProfile, DebugState};
pub use events::EventLine;
pub use forward::{LocalAddress, PortPair, forward, parse_ports};
pub use inspect::{InspectError, ORDINARY_USER, Places};
pub use jsonpath::JsonPath;
pub use listing::Listing;
pub use lock::LockError;
pub use logs::{LogOptions, PodLogLine};
pub use objects::AppliedObject;
pub use own_group::OwnGroup;
pub use processes::{Process, processes};
pub use run::{Ended, Host, RunError, Workload, run, stop};
pub use selector::Selector;
pub use show::{Format, show};
pub use streams::{Finished, join};
pub use terminal::size as terminal_size;
pub use usage_table::{Meter, Usage, binary_bytes};
pub use view::{View, table};
pub use wait::Until;
