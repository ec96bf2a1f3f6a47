//! CRI v1's messages and services as they are on the wire, as of Kubernetes 1.36.
//!
//! Generated from `cri/proto`, where their meaning is the one of Kubernetes' `runtime/v1/api.proto`.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]

tonic::include_proto!("runtime.v1");
