//! What to send, given what a client holds.
