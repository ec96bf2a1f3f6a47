//! The pure part of probes.

mod decision;

pub use decision::{Outcome, Threshold};
