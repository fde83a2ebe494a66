//! Ring 6: what gateways told us. Who is connected, who holds what, who refused what, who lags behind.
//!
//! A [`Ledger`] listens to the streams and keeps one line per stream and type; a [`View`] is a copy of it for whoever
//! asks: `status`, metrics, the API. Nothing here decides anything, and nobody waits for it.

pub mod ledger;
pub mod view;

pub use ledger::Ledger;
pub use view::View;
