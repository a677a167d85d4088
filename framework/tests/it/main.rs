//! Tests of klamm from outside, in one binary.

#[cfg(feature = "testing")]
mod acknowledging;
#[cfg(feature = "testing")]
mod batches;
#[cfg(feature = "testing")]
mod failures;
#[cfg(feature = "testing")]
mod lifecycle;
#[cfg(feature = "testing")]
mod listening;
#[cfg(feature = "testing")]
mod seen;
mod ui;
