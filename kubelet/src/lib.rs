//! Desired pods in, running pods and status out.
