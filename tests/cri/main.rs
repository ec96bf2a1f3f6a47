//! `berth cri` as its clients see it: over the socket.

mod daemon;
mod life;
