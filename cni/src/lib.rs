//! CNI runtime and the built-in plugins.
