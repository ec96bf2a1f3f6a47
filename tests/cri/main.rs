//! `berth cri` as its clients see it: over the socket.

mod bombs;
mod checkpoint;
mod cni;
mod commands;
mod crash;
mod daemon;
mod disk;
mod hostile;
mod life;
mod logs;
#[cfg(target_arch = "x86_64")]
mod points;
mod ports;
mod pulls;
mod registry;
#[cfg(target_arch = "x86_64")]
mod tracer;
