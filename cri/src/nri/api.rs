//! NRI's messages as they are on the wire, as of its release 0.12.
//!
//! Generated from `cri/proto/nri`, where their meaning is the one of NRI's `pkg/api/api.proto`.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]

tonic::include_proto!("nri.pkg.api.v1alpha1");
