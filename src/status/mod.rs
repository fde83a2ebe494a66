//! Ring 6: what gateways told us. Who is connected, who holds what, who refused what, who lags behind.
//!
//! A [`Ledger`] listens to the streams and keeps one line per stream and type; a [`View`] is a copy of it for whoever
//! asks: `status`, metrics, the API. Nothing here decides anything, and nobody waits for it.
//!
//! Behind API servers it also becomes the status of objects: how far gateways are with each ([`programmed`]), the
//! [`document`] that is to stand there, who of several replicas writes it ([`lease`]), by which [`clock`], and
//! the [`writer`]. Every replica tells the others of its gateways: the [`voice`] of one, and the [`voices`] of all.

pub mod clock;
pub mod document;
pub mod lease;
pub mod ledger;
pub mod programmed;
pub mod view;
pub mod voice;
pub mod voices;
pub mod writer;

pub use ledger::Ledger;
pub use view::View;
