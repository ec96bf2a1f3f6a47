//! The plan against a simulated node: tables of what comes in which order, and rules that hold for any pod.

mod clock;
mod ends;
mod looks;
mod properties;
mod resize;
mod rules;
mod scenarios;
mod simulator;
