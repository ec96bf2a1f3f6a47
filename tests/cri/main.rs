//! `berth cri` as its clients see it: over the socket.

mod checkpoint;
mod crash;
mod daemon;
mod life;
