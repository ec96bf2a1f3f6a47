//! One process per pod: starts, watches and logs its containers.

pub mod protocol;
