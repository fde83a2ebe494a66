//! Independent checker of snapshots.
