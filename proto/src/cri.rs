//! The container runtime interface, as far as sandboxes go.

generated!("runtime.v1");
