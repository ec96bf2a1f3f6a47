//! OCI runtime library: a spec in, processes out.
